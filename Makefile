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
	@python -m probe --url http://127.0.0.1:8088 --seconds 60 $(PROBE)

demo-down: ## Remove all of the demo
	@molecule/testbed/nodes down demo

test: .venv/done ## Linters, unit tests, rendering, and Molecule on real nodes
	@tools/run_tests.py

test-all: .venv/done ## The same, and every row of the fault matrix (an hour)
	@PADDOCK_FULL=1 tools/run_tests.py

faults: .venv/done ## Every row of the fault matrix, as a table in build/faults.md (half an hour)
	@PADDOCK_FULL=1 tools/run_tests.py molecule-faults; status=$$?; \
	cat build/faults.md; exit $$status

failover: .venv/done ## How long nobody answers when a balancer dies in each of five ways (ten minutes)
	@PADDOCK_FULL=1 tools/run_tests.py molecule-pair; status=$$?; \
	grep "no answer for" build/molecule-pair.log; exit $$status

security: .venv/done ## How closed the demo is; SECURITY='-i inventory/production.yml' asks another fleet
	@ansible-playbook playbooks/security.yml $(SECURITY)

bench: .venv/done ## Measure what the README promises, on nodes of its own
	@bench/bench.py

lock: .venv/done ## Resolve all pinned dependencies anew
	@tools/lock.sh

docs: .venv/done ## Write docs/settings.md from the schema and the roles
	@tools/write_settings.py

.venv/done: requirements.txt tools/venv.sh
	@tools/venv.sh

.PHONY: help demo probe demo-down test test-all faults failover security bench lock docs
