# One run for each rule about a variable, and one for each thing that only the whole shows.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  lab_name            = "tftest"
  topology            = "small"
  subnet              = "10.77.4.0/24"
  bastion_ssh_cidr    = "203.0.113.7/32"
  ssh_public_key_file = "tests/keys/good.pub"
}

run "right_values_are_taken" {
  command = plan
  variables {
    region            = "eu-central-1"
    availability_zone = "eu-central-1b"
    kms_key_arn       = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    tags              = { Owner = "streaming" }
    volume_gib        = 16
  }
}

run "lab_name_with_a_capital" {
  command = plan
  variables {
    lab_name = "Lab"
  }
  expect_failures = [var.lab_name]
}

run "lab_name_of_13_characters" {
  command = plan
  variables {
    lab_name = "thirteen-char"
  }
  expect_failures = [var.lab_name]
}

run "topology_that_is_not_there" {
  command = plan
  variables {
    topology = "enormous"
  }
  expect_failures = [var.topology]
}

run "subnet_without_a_prefix" {
  command = plan
  variables {
    subnet = "10.77.0.0"
  }
  expect_failures = [var.subnet]
}

run "subnet_of_ipv6" {
  command = plan
  variables {
    subnet = "fd00::/64"
  }
  expect_failures = [var.subnet]
}

run "ssh_from_the_whole_world" {
  command = plan
  variables {
    bastion_ssh_cidr = "0.0.0.0/0"
  }
  expect_failures = [var.bastion_ssh_cidr]
}

run "ssh_from_half_the_world" {
  command = plan
  variables {
    bastion_ssh_cidr = "128.0.0.0/1"
  }
  expect_failures = [var.bastion_ssh_cidr]
}

run "ssh_from_a_network_of_7_bits" {
  command = plan
  variables {
    bastion_ssh_cidr = "202.0.0.0/7"
  }
  expect_failures = [var.bastion_ssh_cidr]
}

run "ssh_from_a_network_of_8_bits_is_taken" {
  command = plan
  variables {
    bastion_ssh_cidr = "203.0.0.0/8"
  }
}

run "ssh_from_an_address_without_a_prefix" {
  command = plan
  variables {
    bastion_ssh_cidr = "203.0.113.7"
  }
  expect_failures = [var.bastion_ssh_cidr]
}

run "ssh_from_ipv6" {
  command = plan
  variables {
    bastion_ssh_cidr = "::/0"
  }
  expect_failures = [var.bastion_ssh_cidr]
}

run "private_key_instead_of_the_public_one" {
  command = plan
  variables {
    ssh_public_key_file = "tests/keys/good"
  }
  expect_failures = [var.ssh_public_key_file]
}

run "region_that_is_none" {
  command = plan
  variables {
    region = "Frankfurt"
  }
  expect_failures = [var.region]
}

run "zone_that_is_a_region" {
  command = plan
  variables {
    availability_zone = "eu-central-1"
  }
  expect_failures = [var.availability_zone]
}

run "volume_too_small" {
  command = plan
  variables {
    volume_gib = 15
  }
  expect_failures = [var.volume_gib]
}

run "volume_too_large" {
  command = plan
  variables {
    volume_gib = 16385
  }
  expect_failures = [var.volume_gib]
}

run "volume_with_a_fraction" {
  command = plan
  variables {
    volume_gib = 20.5
  }
  expect_failures = [var.volume_gib]
}

run "key_that_is_no_arn" {
  command = plan
  variables {
    kms_key_arn = "alias/lab"
  }
  expect_failures = [var.kms_key_arn]
}

run "tag_that_is_set_already" {
  command = plan
  variables {
    tags = { lab = "mine" }
  }
  expect_failures = [var.tags]
}

run "tag_of_aws" {
  command = plan
  variables {
    tags = { "aws:owner" = "me" }
  }
  expect_failures = [var.tags]
}

run "tag_with_a_long_value" {
  command = plan
  variables {
    tags = { Note = join("", [for number in range(257) : "x"]) }
  }
  expect_failures = [var.tags]
}

# What stops the plan as a whole. The texts are tested in tests/terraform/test_terraform_aws.py.

run "no_key" {
  command = plan
  variables {
    ssh_public_key_file = "tests/keys/missing.pub"
  }
  expect_failures = [terraform_data.checked]
}

run "file_that_holds_no_key" {
  command = plan
  variables {
    ssh_public_key_file = "tests/keys/text.pub"
  }
  expect_failures = [terraform_data.checked]
}

run "private_half_missing" {
  command = plan
  variables {
    ssh_public_key_file = "tests/keys/alone.pub"
  }
  expect_failures = [terraform_data.checked]
}

run "subnet_larger_than_a_vpc" {
  command = plan
  variables {
    subnet = "10.0.0.0/16"
  }
  expect_failures = [terraform_data.checked]
}

run "subnet_too_small" {
  command = plan
  variables {
    subnet = "10.77.4.0/28"
  }
  expect_failures = [terraform_data.checked]
}

run "subnet_with_host_bits" {
  command = plan
  variables {
    subnet = "10.77.4.7/24"
  }
  expect_failures = [terraform_data.checked]
}

run "subnet_of_public_addresses" {
  command = plan
  variables {
    subnet = "8.8.8.0/24"
  }
  expect_failures = [terraform_data.checked]
}

run "node_on_an_address_of_aws" {
  command = plan
  variables {
    topology        = "tests/topologies/reserved_address.yaml"
    required_groups = []
  }
  expect_failures = [terraform_data.checked]
}

run "node_on_the_address_of_the_state_directory" {
  command = plan
  variables {
    topology        = "tests/topologies/state_address.yaml"
    required_groups = []
  }
  expect_failures = [terraform_data.checked]
}

run "node_too_large_for_every_type" {
  command = plan
  variables {
    topology        = "tests/topologies/huge.yaml"
    required_groups = []
  }
  expect_failures = [terraform_data.checked]
}

run "topology_that_lacks_groups" {
  command = plan
  variables {
    topology = "tests/topologies/huge.yaml"
  }
  expect_failures = [terraform_data.checked]
}

run "zone_that_lacks_a_type" {
  command = plan
  variables {
    availability_zone = "eu-central-1c"
  }
  expect_failures = [terraform_data.checked]
}
