# The two commands of the README are `make smesh` and `make test`; both install what is missing by themselves.

CARGO ?= cargo
# Where `make smesh` puts the data it makes; run it again to go on.
DIR ?= smesh-data

# RocksDB is compiled in a few large units; elsewhere than on Linux its own, slower build is used.
ifneq ($(shell uname),Linux)
export ROCKSDB_COMPILE = 1
endif

.PHONY: smesh test soak bench test-gpu gpu-kit ptx setup

# The main job: a whole network on this machine, until the activation of an identity is accepted by a node that had no part in it.
smesh: setup
	$(CARGO) build --release --locked -p post-init -p post-prover -p poet-service -p smesh-node
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

# The GPU label kernels on the devices of this machine (software Vulkan and an emulated CUDA driver where there is no GPU): tests,
# then rates. PREBUILT=folder runs what `make gpu-kit` packed.
test-gpu:
	@CARGO="$(CARGO)" scripts/test-gpu $(PREBUILT)

# Tests and measurements for a GPU machine without compiler and network, in the folder KIT.
gpu-kit: setup
	@CARGO="$(CARGO)" scripts/gpu-kit "$(or $(KIT),gpu-kit)"

# PTX from label.cu; fetches NVIDIA's compilers from PyPI (600 MB, no root, no GPU) into PTX_WORK.
ptx:
	kernels/src/label/cuda/ptx.sh $(PTX_WORK)

# What a bare Debian or Ubuntu lacks.
setup:
	@scripts/setup
