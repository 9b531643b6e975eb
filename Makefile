# The two commands of the README are `make smesh` and `make test`; both install what is missing by themselves.

CARGO ?= cargo
# Where `make smesh` puts the data it makes; run it again to go on.
DIR ?= smesh-data

.PHONY: smesh test soak bench setup

# The main job: a small identity is initialised and checked, with the label function of mainnet.
smesh: setup
	$(CARGO) build --release --locked -p post-init
	DIR="$(DIR)" scripts/smesh

# Everything that must hold before a change lands.
test: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) test --workspace --locked
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

# The long forms of the tests: the same code with larger counts.
soak: setup
	SOAK=1 $(CARGO) test --workspace --locked --release -- --nocapture

# The figures of docs/performance.md. PEER_INITIALIZER=/path/to/initializer runs the official program beside ours.
bench: setup
	$(CARGO) run --release --locked -p benches

# What a bare Debian or Ubuntu lacks.
setup:
	@scripts/setup
