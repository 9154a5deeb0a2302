// Builds the provider hashicorp/external where the Terraform registry cannot be reached (`make setup` says when).
// 1.2.0 is the newest version that a Go module proxy can serve: version 2 never became a Go module of its own.
module crypto-stream-lab/terraform-provider-external

go 1.18

require github.com/terraform-providers/terraform-provider-external v1.2.0
