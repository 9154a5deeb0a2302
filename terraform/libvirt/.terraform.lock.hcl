# This file is maintained automatically by "terraform init".
# Manual edits may be lost in future updates.

provider "registry.terraform.io/dmacvicar/libvirt" {
  version     = "0.8.3"
  constraints = "0.8.3"
  hashes = [
    "h1:yVpwycBYxzx0mZLZ+6dfx0woMsZ5RSj4K1CmkGXsp7M=",
  ]
}

provider "registry.terraform.io/hashicorp/external" {
  version     = "1.2.0"
  constraints = ">= 1.2.0, < 3.0.0"
  hashes = [
    "h1:IYy/JRmYACatt4rwEGqP++usOufoLwmJOdezFnxrfME=",
  ]
}
