"""A site's script of NVIDIA FLARE's own FedAvg, and the module that its server averages: jobs of `deployment.py`."""

import argparse
import json
import time
from pathlib import Path

from torch import nn

from deployment_parts import model_of, step_of


class Net(nn.Module):
    """Has the entries that a site of ours shares, and no others."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.backbone = model_of(model, "any")[1].backbone


def main() -> None:
    import nvflare.client as engine

    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--stamps", type=Path, required=True)
    options = parser.parse_args()
    engine.init()
    name = engine.get_site_name()
    step, _ = step_of(options.model, name, options.rounds)
    with (options.stamps / name).open("a") as stamps:
        while engine.is_running():
            message = engine.receive()
            if message is None:
                break
            stamps.write(json.dumps({"round": message.current_round, "time": time.time()}) + "\n")
            stamps.flush()
            update = step(message.current_round, message.params)
            engine.send(engine.FLModel(params=dict(update.state), meta={"NUM_STEPS_CURRENT_ROUND": 1}))


if __name__ == "__main__":
    main()
