terraform {
  required_version = ">= 1.9.0, < 2.0.0"

  required_providers {
    external = {
      source = "hashicorp/external"
      # 1.2.0 is what can be built where the registry is out of reach (terraform/providers/external).
      version = ">= 1.2.0, < 3.0.0"
    }
  }
}
