terraform {
  required_version = ">= 1.9.0, < 2.0.0"

  required_providers {
    libvirt = {
      source = "dmacvicar/libvirt"
      # 0.9 is another language: it renames nearly every argument.
      version = "0.8.3"
    }
    external = {
      source = "hashicorp/external"
      # 1.2.0 is what can be built where the registry is out of reach (terraform/providers/external).
      version = ">= 1.2.0, < 3.0.0"
    }
  }
}

provider "libvirt" {
  uri = var.libvirt_uri
}
