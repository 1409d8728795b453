#!/usr/bin/env bash
# The server with curl. Before: eqm serve fashion-mnist. Another address is the argument.
set -euo pipefail

address=${1:-http://127.0.0.1:8000}
ask() { curl --silent --show-error --fail-with-body --header 'Content-Type: application/json' "$@"; }
picture() { python3 -c 'import base64, json, sys
answer = json.load(sys.stdin)
sys.stdout.buffer.write(base64.b64decode((answer.get("data") or answer["samples"])[0]["b64_json"]))'; }

curl --silent --show-error --fail "$address/v1/models" > models.json && head -c 200 models.json && echo

# in OpenAI's form
ask "$address/v1/images/generations" --data '{"model": "fashion-mnist", "prompt": "sneaker + boot", "size": "280x280"}' | picture > both.png

# with all settings of eqm
ask "$address/v1/sample" --data '{"model": "fashion-mnist", "labels": "coat", "seed": 3, "sampling": {"guidance": 2}}' | picture > coat.png

# a picture of your own: variations of it
ask "$address/v1/vary" --data "{\"model\": \"fashion-mnist\", \"images\": [\"$(base64 < coat.png | tr -d '\n')\"], \"labels\": \"coat\"}" | picture > varied.png

# previews on the way, as server-sent events
ask --no-buffer "$address/v1/sample" --data '{"model": "fashion-mnist", "labels": "bag", "stream": true}' | grep '^event:'
