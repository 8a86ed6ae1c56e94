"""What the gateway processes of one `ogate serve` share beside the ledger: the rate limits."""

from pathlib import Path

from opencode_gate.core.errors import GatewayError
from opencode_gate.governance.rates import RateMeter, Rates
from opencode_gate.server.protocol import Hello

_RATES = "rates"


def rates_of(hello: Hello) -> Rates:
    """What requests are held against: in this process, or with its siblings in the run folder.

    Raises:
        GatewayError: the run folder cannot be written to.
    """
    served = hello.served
    if served is None or served.workers == 1:
        return RateMeter()
    from opencode_gate.governance.shared_rates import BLOCK_WORDS, BLOCKS, SharedRates
    from opencode_gate.ledger.shared_blocks import SharedBlocks

    file = Path(hello.run_folder) / _RATES
    try:
        blocks = SharedBlocks(file, words=BLOCK_WORDS, blocks=BLOCKS)
    except OSError as error:
        raise GatewayError(
            "gateway-failed",
            f"cannot make {file}: {error.strerror or error}",
            hint="check the folder and the free space",
        ) from error
    return SharedRates(blocks, worker=served.worker)
