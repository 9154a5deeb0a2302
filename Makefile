# The entry points. Each calls a step that also works by hand (README, "Step by step").
#   LAB=name       which lab (default: lab); several may live side by side
#   TARGET=lxd|libvirt|aws  where the nodes come from (libvirt where KVM works, else lxd; a lab keeps its own)
#   TOPOLOGY=small SUBNET=10.77.0.0/24 SOURCE=coinbase_rest|coinbase_ws|tape FEED=auto|coinbase|replay TAPE_FILE=file SPEED=1
#   MONITORING=on|off AIRFLOW=on|off
#   QUICK=1 ONLY=latency (bench)
#   IMAGE=debian|built VIRTUALIZATION=kvm|qemu (libvirt)  SSH_CIDR=203.0.113.7/32 CONFIRM=lab (aws)
SHELL := /bin/bash
export LAB TARGET TOPOLOGY SUBNET SOURCE FEED TAPE_FILE SPEED MONITORING AIRFLOW SERVICE CONFIRM IMAGE VIRTUALIZATION SSH_CIDR
LAB_TOOL := python3 tools/lab
VENV := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup lab image artifacts status ssh psql topics audit ui ui-stop reset down clean check format test test-all \
        bench report test-vm test-unit test-integration test-terraform test-lab molecule checksums lock docs require-python

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

require-python:
	@command -v python3 >/dev/null || { echo "Python 3.11 or newer is missing: apt-get install python3"; exit 1; }

setup: require-python ## Check this machine and install what is missing
	@$(LAB_TOOL) setup

lab: require-python ## From a bare machine to prices in both tables
	@$(LAB_TOOL) up

status: ## Nodes, services, row counts and newest prices
	@$(LAB_TOOL) status

ssh: ## A shell on a node: make ssh NODE=kafka-1
	@$(LAB_TOOL) ssh "$(NODE)"

# By the environment: the shell would take quotes and dollars of the query for its own.
psql: export Q := $(value Q)
psql: ## SQL in crypto_db: make psql, or make psql Q='SELECT ...'
	@$(LAB_TOOL) psql

topics: ## Topics, partitions and newest offsets
	@$(LAB_TOOL) topics

audit: ## Producer's count = topic's count = rows of both tables, event by event
	@$(LAB_TOOL) audit

ui: ## The lab's web pages on localhost, through SSH
	@$(LAB_TOOL) ui

ui-stop: ## Close what `make ui` has opened
	@$(LAB_TOOL) ui-stop

# Both keep the lab's name and target from the environment.
bench: ## Compare Spark and Flink on the running lab: make bench, or the short form: make bench QUICK=1
	@tools/compare run $(if $(QUICK),--quick) $(foreach name,$(ONLY),--only $(name))

report: ## The report of the newest comparison
	@tools/compare report

reset: ## Begin anew: make reset SERVICE=spark|flink|kafka|all CONFIRM=lab; without CONFIRM it says what that deletes
	@$(LAB_TOOL) reset

down: ## Remove this lab's nodes; artifacts and image are kept
	@$(LAB_TOOL) down

clean: ## Remove every lab of this folder, images, artifacts and keys
	@$(LAB_TOOL) clean

image: ## Build the node image
	@$(LAB_TOOL) image

artifacts: ## Fetch and build what the nodes need
	@$(LAB_TOOL) artifacts

check: ## Lint and unit tests, under two minutes
	@tests/check

format: ## Format Python and Terraform
	@$(VENV)/ruff format . && $(VENV)/ruff check --fix . && terraform fmt -recursive terraform

docs: ## Write the READMEs of roles and of Terraform's roots and modules
	@$(VENV)/python tools/role_readmes.py && $(VENV)/python tools/terraform_readmes.py

test: ## What CI runs: check, integration, molecule, and a lab of its own with its tests
	@$(LAB_TOOL) --target lxd setup --tests
	@$(VENV)/python tests/run.py

test-vm: ## The whole lab on one emulated virtual machine, and its tests
	@$(LAB_TOOL) --target libvirt setup
	@$(VENV)/python tests/run.py --all vm

test-all: ## The same with every molecule scenario and every slow test
	@$(LAB_TOOL) --target lxd setup --tests
	@$(VENV)/python tests/run.py --all

test-unit: ## Unit and house tests
	@$(VENV)/pytest -q tests/unit tests/house

test-integration: ## The apps against a real Kafka, PostgreSQL, Spark and Flink
	@$(VENV)/python tests/integration/run.py

test-terraform: ## terraform test, fmt, validate
	@$(VENV)/pytest -q tests/terraform

molecule: ## The roles' molecule scenarios: make molecule ROLE=kafka, or ROLE=kafka/cluster, or all
	@$(VENV)/python tests/molecule.py $(ROLE)

test-lab: ## testinfra against the running lab
	@$(VENV)/pytest -q tests/lab

checksums: ## Write the SHA-256 of the pinned jars again, after a wanted change of versions
	@$(VENV)/python tools/checksums.py

lock: ## Resolve the lock files again
	@$(VENV)/python tools/lock.py
