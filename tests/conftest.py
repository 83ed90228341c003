"""Every test runs offline, with caches of its own, and so does every process that a test starts."""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

_CLOSED_NETWORK = Path(__file__).parent / "closed_network"
_CACHE = tempfile.mkdtemp(prefix="finetune-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)

_worker = os.environ.get("PYTEST_XDIST_WORKER")
if _worker is not None and hasattr(os, "sched_setaffinity"):
    # A core for each worker and the processes that it starts: threads of several would wait for each other.
    cores = sorted(os.sched_getaffinity(0))
    count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, cores[int(_worker.removeprefix("gw")) % len(cores) :: count])

os.environ["HF_HOME"] = _CACHE
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["MPLCONFIGDIR"] = str(Path(_CACHE) / "matplotlib")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_CLOSED_NETWORK), os.environ.get("PYTHONPATH")]))
sys.path.insert(0, str(_CLOSED_NETWORK))
sys.modules.pop("sitecustomize", None)
import datasets  # noqa: E402
import pytest  # noqa: E402
import sitecustomize  # noqa: E402, F401  # closes the network
import torch  # noqa: E402
import transformers  # noqa: E402

datasets.disable_progress_bars()
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(2 if _worker is None else 1)


def pytest_collection_finish() -> None:
    """What is imported by now stays: whoever collects garbage, as a training does at its end, need not look at it."""
    gc.collect()
    gc.freeze()


ROOT = Path(__file__).parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def kobert_files() -> Path:
    """The directory of KoBERT's original tokenizer files, where it is present."""
    directory = SHARED_DATA / "kobert_tokenizer"
    if not directory.is_dir():
        pytest.skip(
            "needs KoBERT's tokenizer_78b3253a26.model and vocab.txt in ../shared/data/kobert_tokenizer, which are not "
            "part of the project"
        )
    return directory


@pytest.fixture
def nsmc() -> Path:
    """The directory of NSMC's original split, where it is present."""
    directory = SHARED_DATA / "nsmc"
    if not directory.is_dir():
        pytest.skip("needs NSMC (train.parquet, test.parquet) in ../shared/data/nsmc, which is not part of the project")
    return directory
