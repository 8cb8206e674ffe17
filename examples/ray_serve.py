"""Several replicas behind one door, with Ray Serve: python examples/ray_serve.py"""

from ray import serve

import smolvlm
from smolvlm.server.app import make_app
from smolvlm.server.guard import protect
from smolvlm.server.settings import Limits, Settings

SETTINGS = Settings(limits=Limits(workers=1))


@serve.deployment(num_replicas=2, max_ongoing_requests=64, graceful_shutdown_timeout_s=60, health_check_period_s=5)
@serve.ingress()
class Replica:
    def __init__(self, model: str = "nano") -> None:
        self.served = make_app(smolvlm.load(model, cache_bytes=2**30), SETTINGS)

    def __serve_build_asgi_app__(self):
        return protect(self.served, SETTINGS)

    def check_health(self) -> None:
        assert self.served.state.house.is_well, "it answers no more: start another"


app = Replica.bind()
if __name__ == "__main__":
    serve.run(app, blocking=True)
