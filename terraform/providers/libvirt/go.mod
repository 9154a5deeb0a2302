// Builds the provider dmacvicar/libvirt where the Terraform registry cannot be reached (`make setup TARGET=libvirt` says
// when).
module crypto-stream-lab/terraform-provider-libvirt

go 1.23

require github.com/dmacvicar/terraform-provider-libvirt v0.8.3
