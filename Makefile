# The commands of this repository. Each sets up what it needs: .venv, podman, the node images.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Molecule names its state after the folder's last part alone; this keeps two checkouts apart.
export ANSIBLE_HOME := $(CURDIR)/.ansible
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/done ## A fleet in containers, from nothing to answers: 1 balancer, 2 backends, 2 apps
	@molecule/testbed/nodes image trixie >/dev/null
	@molecule/testbed/nodes start demo
	ansible-playbook site.yml
	@tools/show_demo.py

probe: .venv/done ## Load on the demo, each request counted; PROBE='--seconds 30' passes options
	@paddock-probe --url http://127.0.0.1:8088 --ws /welcome/ws --seconds 60 $(PROBE)

demo-down: ## Remove all of the demo
	@molecule/testbed/nodes down demo

test: .venv/done ## Linters, unit tests, rendering, and Molecule on real nodes
	@tools/run_tests.py

lint: .venv/done ## Linters only
	@tools/run_tests.py lint

unit: .venv/done ## Unit tests and rendering only, without nodes
	@tools/run_tests.py unit

test-role: .venv/done ## The scenario of a role on real nodes: make test-role ROLE=nginx
	@tools/run_tests.py molecule-$(ROLE)

test-all: .venv/done ## The same, and every row of the fault matrix (an hour)
	@PADDOCK_FULL=1 tools/run_tests.py

faults: .venv/done ## Every row of the fault matrix, as a table in build/faults.md (half an hour)
	@PADDOCK_FULL=1 tools/run_tests.py molecule-faults; status=$$?; \
	cat build/faults.md; exit $$status

failover: .venv/done ## How long clients get no answer when a balancer dies, in five ways (ten minutes)
	@PADDOCK_FULL=1 tools/run_tests.py molecule-keepalived; status=$$?; \
	grep "no answer for" build/molecule-keepalived.log; exit $$status

security: .venv/done ## Audit the demo; SECURITY='-i inventory/production.yml' asks another fleet
	@ansible-playbook playbooks/security.yml $(SECURITY)

bench: .venv/done ## Measure what the README promises, on nodes of its own
	@bench/bench.py

lock: .venv/done ## Resolve all pinned dependencies
	@tools/lock.sh

docs: .venv/done ## Write docs/settings.md and the tables of the roles from the specs
	@tools/write_settings.py

.venv/done: requirements.txt tools/venv.sh
	@tools/venv.sh

.PHONY: help demo probe demo-down test lint unit test-role test-all faults failover security bench lock docs
