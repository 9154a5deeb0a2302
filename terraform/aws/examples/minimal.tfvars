# The least that must be said: who may reach the bastion. terraform apply -var-file=examples/minimal.tfvars
bastion_ssh_cidr = "203.0.113.7/32"
region           = "eu-central-1"
