"""Draws, repairs and judges pictures over HTTP. Before: `eqm serve fashion-mnist`. Another address is the argument."""

import json
import sys
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import httpx
from PIL import Image, ImageDraw


def encoded(picture: Image.Image) -> str:
    file = BytesIO()
    picture.save(file, "png")
    return b64encode(file.getvalue()).decode()


def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    with httpx.Client(base_url=address, timeout=120) as server:

        def ask(use: str, **body: object) -> dict:
            answer = server.post(f"/v1/{use}", json={"model": "fashion-mnist", **body})
            return answer.raise_for_status().json()

        drawn = ask("sample", labels=["sneaker", "coat", "bag"], seed=0)["samples"]
        for sample in drawn:
            print(f"{sample['label']}: {sample['sentence']}")
            Path(f"{sample['label']}.png").write_bytes(b64decode(sample["b64_json"]))
        coat, mask = Image.open("coat.png"), Image.new("L", (28, 28))
        ImageDraw.Draw(mask).rectangle((10, 8, 18, 20), fill=255)  # white is missing
        hole = {"operator": {"name": "inpaint"}, "mask": encoded(mask)}
        repaired = ask("restore", images=[encoded(coat)], labels="coat", count=4, **hole)
        print(f"{len(repaired['samples'])} ways to fill the hole, in {repaired['seconds']:.1f} s")

        verdict = ask("detect", images=[drawn[0]["b64_json"], encoded(mask)], fpr=0.05)
        for each in verdict["results"]:
            print("anomalous" if each["anomalous"] else "normal", f"p-value {each['p_value']:.3f}")

        body = {"labels": "boot", "seed": 5, "stream": True, "preview_every": 2}
        with server.stream("POST", "/v1/sample", json=body) as events:  # previews on the way
            for line in events.iter_lines():
                if line.startswith("data: ") and "max_steps" in line:
                    for sample in json.loads(line[6:])["samples"]:
                        print(f"step {sample['steps']}, norm {sample['gradient_norm']:.2f}")


if __name__ == "__main__":
    main()
