#!/bin/sh
# Makes the secrets that compose.yaml mounts, each once. Prints none of them.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
make_one() { # NAME VALUE
    [ -e "secrets/$1" ] || printf '%s\n' "$2" >"secrets/$1"
    chmod 444 "secrets/$1" # containers read it as a user of their own; the folder keeps others out
}
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
make_one api_key "$(random)"
make_one grafana_password "$(random)"
make_one postgres_password "$(random)"
make_one database "postgresql://rerankd:$(cat secrets/postgres_password)@postgres/rerankd"
echo "The secrets are in $(pwd)/secrets: api_key is the key that callers send."
