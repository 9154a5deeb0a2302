# An estimate, so that nobody applies without a figure: `terraform plan` shows it among the outputs.

locals {
  # USD, list prices on demand of us-east-1 (Linux), noted in 2025 and not checked since: an order of
  # magnitude. Other regions take up to a half more.
  prices = {
    per_hour = {
      "t3.micro"    = 0.0104
      "t3.small"    = 0.0208
      "t3.medium"   = 0.0416
      "t3.large"    = 0.0832
      "t3.xlarge"   = 0.1664
      "t3.2xlarge"  = 0.3328
      "c6i.large"   = 0.085
      "m6i.large"   = 0.096
      "r6i.large"   = 0.126
      "c6i.xlarge"  = 0.17
      "m6i.xlarge"  = 0.192
      "r6i.xlarge"  = 0.252
      "c6i.2xlarge" = 0.34
      "m6i.2xlarge" = 0.384
      "r6i.2xlarge" = 0.504
      "c6i.4xlarge" = 0.68
      "m6i.4xlarge" = 0.768
      "r6i.4xlarge" = 1.008
      nat_gateway   = 0.045
      public_ipv4   = 0.005
    }
    volume_per_gib_month = 0.08
    state_per_gib_month  = 0.30
    hours_per_month      = 730
    # Spot prices move; a discount of 60 % is common for these types.
    spot_share = 0.4
    # Artifacts and checkpoints of a lab that ran for a day.
    state_gib = 5
  }

  cost_per_hour = {
    nodes       = sum(concat([0], [for type in values(local.node_types) : local.prices.per_hour[type]])) * (var.spot ? local.prices.spot_share : 1)
    bastion     = local.prices.per_hour[local.bastion_type]
    nat_gateway = local.prices.per_hour.nat_gateway
    # The bastion's and the NAT gateway's.
    public_ipv4 = 2 * local.prices.per_hour.public_ipv4
    volumes     = (length(local.node_types) * var.volume_gib + 8) * local.prices.volume_per_gib_month / local.prices.hours_per_month
    state       = local.prices.state_gib * local.prices.state_per_gib_month / local.prices.hours_per_month
  }
  cost_sum_per_hour = sum(values(local.cost_per_hour))
}
