terraform {
  required_version = ">= 1.9.0, < 2.0.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

# Credentials come from where the AWS tools look for them (AWS_PROFILE, AWS_ACCESS_KEY_ID, ...), never from here.
provider "aws" {
  region = var.region

  default_tags {
    tags = local.tags
  }
}
