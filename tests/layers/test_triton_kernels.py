"""The Triton kernels without a GPU: interpreted on the CPU, compiled for GPUs that are not there, and left out."""

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from dtn_det.layers.kernels import KernelStatus, gpu, operator
from dtn_det.layers.plain import DTNOptions, DTNParameters

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")


@needs_triton
@pytest.mark.parametrize("selection", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_interpreted_kernels_agree_with_the_plain_form(selection):
    # Triton decides between compiling and interpreting when it is imported.
    file = Path(__file__).parents[1] / "support" / "interpreted_triton.py"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", selection, str(file)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


def kernel_options(kernel, channels, head_rms, only_var):
    """The compile-time arguments of a kernel, as a launch sets them."""
    plan = gpu.Tiling(1, 5, 7, channels, 2)
    values = {
        **plan.tile_options,
        "BLOCK": gpu.AXIS_BLOCK,
        "BLOCK_G": 2,
        "COLUMNS": gpu.COLUMNS,
        "HEAD_RMS": head_rms,
        "ONLY_VAR": only_var,
    }
    return {parameter.name: values[parameter.name] for parameter in kernel.params if parameter.is_constexpr}


def argument_type(name, low):
    if name in ("eps", "depth", "divisor"):
        return "fp32"
    if name in ("batch", "height", "width", "num_groups", "channels", "first_slot"):
        return "i32"
    if name == "bounds":
        return "*i32"
    return f"*{low}" if name in ("x", "grad_x") else "*fp32"


KERNELS = [
    "forward.axis_kernel",
    "forward.token_kernel",
    "forward.row_moments_kernel",
    "forward.output_kernel",
    "backward.output_gradient_kernel",
    "backward.column_transpose_kernel",
    "backward.input_gradient_kernel",
]


@needs_triton
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    ("capability", "low", "channels", "head_rms", "only_var"),
    [(80, "fp16", 64, True, False), (90, "bf16", 96, False, True), (75, "fp32", 20, True, True)],
)
def test_kernels_compile_to_machine_code(name, capability, low, channels, head_rms, only_var, tmp_path, monkeypatch):
    compiler = pytest.importorskip("triton.compiler")
    target = pytest.importorskip("triton.backends.compiler").GPUTarget("cuda", capability, 32)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module, kernel_name = name.split(".")
    kernel = getattr(gpu.load()[0][["forward", "backward"].index(module)], kernel_name)
    options = kernel_options(kernel, channels, head_rms, only_var)
    signature = {p.name: "constexpr" if p.is_constexpr else argument_type(p.name, low) for p in kernel.params}
    aligned = [[["tt.divisibility", 16]] if signature[p.name].startswith("*") else None for p in kernel.params]
    source = compiler.ASTSource(
        kernel,
        signature=signature,
        constexprs=options,
        attrs={(i,): attribute for i, attribute in enumerate(aligned) if attribute},
    )
    compiled = compiler.compile(source, target=target, options={"num_warps": gpu.WARPS})
    assert len(compiled.asm["cubin"]) > 1000
    assert ".local" not in compiled.asm["ptx"]  # nothing indexed at run time ends up in slow memory


@needs_triton
@pytest.mark.parametrize("name", KERNELS)
def test_sizes_that_change_from_image_to_image_need_no_new_compilation(name):
    module, kernel_name = name.split(".")
    kernel = getattr(gpu.load()[0][["forward", "backward"].index(module)], kernel_name)
    sizes = [p for p in kernel.params if p.name in ("batch", "height", "width", "num_groups", "first_slot")]
    assert sizes
    assert all(p.do_not_specialize for p in sizes)


def test_switched_off_by_the_environment(monkeypatch):
    monkeypatch.setenv("DTN_DET_NATIVE", "0")
    gpu.load.cache_clear()
    try:
        assert gpu.load() == (None, "switched off by DTN_DET_NATIVE=0")
        assert not gpu.try_out(torch.device("cpu"), torch.float32, 8, 2, True, False)
        with pytest.raises(RuntimeError, match="expected DTN's Triton kernels, but they are switched off"):
            gpu.forward(*arguments(), DTNOptions(1e-5, True, True), torch.float32)
    finally:
        gpu.load.cache_clear()
        gpu.try_out.cache_clear()


def test_without_triton_nothing_breaks(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    gpu.load.cache_clear()
    try:
        found, detail = gpu.load()
        assert found is None
        assert detail.startswith("not available: Triton cannot be imported")
    finally:
        gpu.load.cache_clear()


def arguments():
    zeros = torch.zeros
    return zeros(1, 2, 2, 8), DTNParameters(zeros(2, 3), zeros(2), zeros(2), zeros(8), zeros(8))


@pytest.fixture
def fresh_try_out():
    gpu.try_out.cache_clear()
    yield gpu.try_out
    gpu.try_out.cache_clear()


@needs_triton
def test_kernels_that_do_not_work_are_reported_once_and_not_used(fresh_try_out, monkeypatch):
    def fail(*_):
        raise OSError("no compiler")

    monkeypatch.setattr(gpu, "forward", fail)
    with pytest.warns(RuntimeWarning, match=r"do not work on cpu \(OSError: no compiler\).*DTN_DET_NATIVE=0"):
        assert not fresh_try_out(torch.device("cpu"), torch.float32, 8, 2, True, False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not fresh_try_out(torch.device("cpu"), torch.float32, 8, 2, True, False)


@needs_triton
def test_a_full_device_is_no_reason_to_give_up(fresh_try_out, monkeypatch):
    def fail(*_):
        raise torch.cuda.OutOfMemoryError("full")

    monkeypatch.setattr(gpu, "forward", fail)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        fresh_try_out(torch.device("cpu"), torch.float32, 8, 2, True, False)


def test_a_compiled_graph_takes_the_answer_as_a_constant(monkeypatch):
    def opaque(*_):
        warnings.warn("something that no graph can hold", stacklevel=2)
        return True

    monkeypatch.setattr(gpu, "try_out", opaque)

    @torch.compile(fullgraph=True, backend="eager")
    def choose(x):
        return x + 1 if gpu.works(0, torch.float32, 8, 2, True, False) else x - 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(choose(torch.zeros(2)), torch.ones(2))
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("shape", "groups", "dtype"),
    [((1, 2, 2, 4096), 2, torch.float32), ((1, 2, 2, 8), 2, torch.float64), ((0, 2, 2, 8), 2, torch.float32)],
)
def test_what_the_kernels_do_not_cover(shape, groups, dtype):
    assert not gpu.fits(torch.empty(shape, dtype=dtype, device="meta"), groups)


def test_a_map_too_large_for_32_bits_is_not_covered():
    assert gpu.fits(torch.empty(8, 1000, 1000, 96, dtype=torch.float16, device="meta"), 3)
    assert not gpu.fits(torch.empty(400, 1000, 1000, 96, dtype=torch.float16, device="meta"), 3)


def test_other_devices_run_the_plain_form():
    x = torch.empty(1, 2, 2, 8, device="meta")
    assert not gpu.is_usable(torch.empty(1, 2, 2, 8), 2, True, False)
    assert not operator.is_usable(x, 2, True, False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_status_without_a_device():
    assert gpu.status() == KernelStatus(False, "no CUDA device")


def test_the_trial_is_marked_as_pytorchs_compiler_marks_constants() -> None:
    def marked() -> None:
        pass

    torch.compiler.assume_constant_result(marked)
    assert set(vars(marked)) <= set(vars(gpu.works))
