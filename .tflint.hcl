# Every rule of the language; those of a cloud are checkov's.
plugin "terraform" {
  enabled = true
  preset  = "all"
}
