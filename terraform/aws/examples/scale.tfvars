# Sixteen nodes for measurements: steady instances, a key of one's own, tags for the bill.
bastion_ssh_cidr = "198.51.100.0/28"
region           = "eu-central-1"
topology         = "scale"
lab_name         = "scale"
subnet           = "10.77.0.0/24"
volume_gib       = 100
kms_key_arn      = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
tags             = { CostCenter = "4711", Owner = "streaming" }
