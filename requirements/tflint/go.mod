// Builds tflint where there is none (tools/tflint.py).
module crypto-stream-lab/tflint

go 1.25.5

require github.com/terraform-linters/tflint v0.61.0
