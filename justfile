# The daily commands. https://just.systems; every line also works by hand.

# Lists them.
default:
    @just --list

# What has to pass before a change is ready.
gate:
    .ci/run

# One behaviour, such as: just test capacity
test name *args:
    cargo test --release --locked --workspace --test behaviour {{name}}:: -- {{args}}

# The tests beside the code.
unit *args:
    cargo test --release --locked --workspace --lib -- {{args}}

# Formats, then lints as the gate does.
lint:
    cargo fmt --all
    cargo clippy --release --locked --workspace --exclude mistralrs-core --all-targets -- -D warnings

# The API's documentation, warnings as errors.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --no-deps --workspace --exclude mistralrs-core

# The needle test; more flags go along.
needle *args:
    cargo run --release --locked --workspace --bin headkv-eval -- needle {{args}}

# The server on the embedded model.
serve *args:
    cargo run --release --locked --workspace --bin headkv-serve -- {{args}}

# Speed and memory against upstream's attention.
bench *args:
    cargo run --release --locked --workspace --bin headkv-eval -- bench {{args}}

# The three programs into ~/.cargo/bin, with man pages.
install:
    cargo install --locked --path eval
    cargo install --locked --path head-scoring
    cargo install --locked --path serve
    for p in headkv-eval head-scoring headkv-serve; do $p man ~/.local/share/man/man1; done

# Which hunks of the patches fail on another mistralrs-core, unpacked.
upstream folder:
    scripts/upstream-dry-run.sh {{folder}}

# Draws the README's picture again.
story:
    scripts/story.py

# Licences, advisories, spelling: what the gate runs where they are installed.
deny:
    cargo deny --all-features check
    typos
