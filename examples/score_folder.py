"""Scores a folder of pictures with an exported detector, without eqm.

eqm export runs/screw --part detector --output screw.pt2
python score_folder.py screw.pt2 PICTURES
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

graph = torch.export.load(sys.argv[1]).module()
about = json.loads(Path(sys.argv[1]).with_suffix(".json").read_text())
channels, height, width = about["shape"]
calibration = torch.tensor(about["calibration"])
for path in sorted(Path(sys.argv[2]).iterdir()):
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"):
        continue
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB" if channels == 3 else "L")
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    x = torch.from_numpy(pixels / 127.5 - 1).reshape(1, height, width, channels).movedim(3, 1)
    score = graph(x)[0][0]
    p_value = (1 + (calibration >= score).sum()) / (len(calibration) + 1)
    verdict = "anomalous" if score > about["threshold"] else "normal"
    print(f"{path.name}  score {score:.4g}  p-value {p_value:.3f}  {verdict}")
