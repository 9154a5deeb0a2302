# To see it run for little money: one node with every service, burstable, and taken back by AWS when it likes.
bastion_ssh_cidr = "203.0.113.7/32"
region           = "us-east-1"
topology         = "mini"
burstable        = true
spot             = true
volume_gib       = 20
