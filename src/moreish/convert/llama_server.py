"""llama.cpp's HTTP server in a process of its own, run as a script with its settings in JSON.

To close the server within a process may wait for one of its threads forever; a process can be
ended. It prints the server's address, or `error: …`, and ends when its standard input does.
"""

import json
import os
import sys
from importlib import import_module


def main() -> None:
    """Serve a GGUF file until standard input ends."""
    settings = json.loads(sys.argv[1])
    library = import_module("xllamacpp")
    params = library.CommonParams()
    params.model.path = settings["path"]
    params.n_ctx = settings["context"]
    params.n_parallel = 1
    params.warmup = params.fit_params = False
    params.n_gpu_layers = params.cache_ram_mib = params.port = 0
    params.cache_type_k = params.cache_type_v = library.ggml_type.GGML_TYPE_F32
    flash_attention = library.llama_flash_attn_type
    params.flash_attn_type = flash_attention.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.verbosity = -1
    params.hostnames = ["127.0.0.1"]
    try:
        server = library.Server(params)
    except RuntimeError as error:
        sys.stdout.write(f"error: {error}\n")
    else:
        sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)  # without closing the server


if __name__ == "__main__":
    main()
