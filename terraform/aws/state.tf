# The shared state directory (docs/decisions/0007-aws.md: why EFS and not S3).

locals {
  state_path = "/srv/lab-state"
  # Where each node's end of the tunnel to the file system listens.
  state_tunnel_port = 20490
}

resource "aws_efs_file_system" "state" {
  #checkov:skip=CKV_AWS_184:a key of one's own is an option (kms_key_arn); AWS's costs nothing and serves a lab
  creation_token   = "${local.lab_name}-state"
  encrypted        = true
  kms_key_id       = var.kms_key_arn
  performance_mode = "generalPurpose"
  # Bursts are earned by size, and checkpoints are small: what is used is paid, and is there at once.
  throughput_mode = "elastic"
  tags            = { Name = "${local.lab_name}-state" }

  depends_on = [terraform_data.checked]
}

# With it, no client gets in without TLS, or from outside the VPC. Root may own files, as Ansible's roles lay them out.
resource "aws_efs_file_system_policy" "state" {
  file_system_id = aws_efs_file_system.state.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "MountThroughTheTargetInTLS"
      Effect    = "Allow"
      Principal = { AWS = "*" }
      Action    = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite", "elasticfilesystem:ClientRootAccess"]
      Resource  = aws_efs_file_system.state.arn
      Condition = {
        Bool = {
          "aws:SecureTransport"                      = "true"
          "elasticfilesystem:AccessedViaMountTarget" = "true"
        }
      }
    }]
  })
}

resource "aws_efs_mount_target" "state" {
  file_system_id = aws_efs_file_system.state.id
  subnet_id      = aws_subnet.private.id
  # Chosen here, so that it never takes the address that a node is to have.
  ip_address      = local.mount_target_address
  security_groups = [aws_security_group.state.id]
}
