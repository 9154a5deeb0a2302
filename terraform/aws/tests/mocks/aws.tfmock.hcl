# What AWS would answer, as far as this root reads it.

mock_data "aws_region" {
  defaults = { name = "eu-central-1" }
}

# Zone a lacks one type, zone b has all of them, zone c has the small ones only.
mock_data "aws_ec2_instance_type_offerings" {
  defaults = {
    instance_types = [
      "t3.micro", "t3.small", "t3.medium", "t3.large", "t3.xlarge", "t3.2xlarge", "m6i.large",
      "t3.micro", "t3.small", "t3.medium", "t3.large", "t3.xlarge", "t3.2xlarge", "m6i.large", "c6i.large", "c6i.xlarge",
      "t3.micro", "t3.small",
    ]
    locations = [
      "eu-central-1a", "eu-central-1a", "eu-central-1a", "eu-central-1a", "eu-central-1a", "eu-central-1a", "eu-central-1a",
      "eu-central-1b", "eu-central-1b", "eu-central-1b", "eu-central-1b", "eu-central-1b", "eu-central-1b", "eu-central-1b", "eu-central-1b", "eu-central-1b",
      "eu-central-1c", "eu-central-1c",
    ]
  }
}

mock_data "aws_ami" {
  defaults = {
    id   = "ami-0debian12"
    name = "debian-12-amd64-20250601-2130"
  }
}

mock_resource "aws_eip" {
  defaults = { public_ip = "198.51.100.10" }
}

mock_resource "aws_efs_file_system" {
  defaults = {
    id       = "fs-0123456789abcdef0"
    arn      = "arn:aws:elasticfilesystem:eu-central-1:111122223333:file-system/fs-0123456789abcdef0"
    dns_name = "fs-0123456789abcdef0.efs.eu-central-1.amazonaws.com"
  }
}
