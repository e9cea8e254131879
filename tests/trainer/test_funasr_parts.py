"""FunASR's classes, without importing all of FunASR."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from trainer.funasr_parts import load, registered

pytestmark = pytest.mark.quick


def printed(code: str) -> str:
    """What code prints in a process of its own, where nothing of FunASR is imported yet."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_class_comes_without_the_rest_of_funasr_and_nothing_is_printed() -> None:
    code = (
        "import sys; from trainer.funasr_parts import registered; "
        "name = registered('model_classes', 'FunASRNano').__name__; "
        "print(name, 'funasr.auto.auto_model' in sys.modules)"
    )
    assert printed(code) == "FunASRNano False\n"


def test_the_version_is_known_without_importing_funasr() -> None:
    code = (
        "import sys; from trainer.funasr_parts import version; "
        "print(version()[0].isdigit(), {'funasr', 'torch'} & set(sys.modules))"
    )
    assert printed(code) == "True set()\n"


def test_a_package_that_was_imported_before_is_taken_as_it_is() -> None:
    code = (
        "import sys, types; package = types.ModuleType('funasr'); package.__path__ = []; "
        "sys.modules['funasr'] = package; from trainer.funasr_parts import load; "
        "print(load('funasr') is package)"
    )
    assert printed(code) == "True\n"


def test_modules_and_classes_are_those_that_funasr_itself_would_give() -> None:
    frontend = registered("frontend_classes", "WavFrontend")
    assert frontend is load("funasr.frontends.wav_frontend").WavFrontend
    with pytest.raises(KeyError, match="NoSuchModel"):
        registered("model_classes", "NoSuchModel")


def test_a_model_needs_neither_numba_nor_scipy_whose_function_is_there_when_it_is_called() -> None:
    code = (
        "import sys; from conf.load import load_config, stage_config_path; "
        "from tests.conftest import BASE; from trainer.model.build import build; "
        "build(load_config(stage_config_path('8k'), init_param=BASE / 'model.pt')); "
        "print({'numba', 'scipy.optimize', 'scipy.signal'} & set(sys.modules)); "
        "from transformers.loss.loss_for_object_detection import linear_sum_assignment as assign; "
        "print(assign([[2, 1], [1, 2]])[1].tolist(), 'scipy.optimize' in sys.modules)"
    )
    assert printed(code) == "set()\n[1, 0] True\n"


def test_another_name_of_a_module_that_is_imported_later_imports_it_at_once() -> None:
    code = (
        "import sys; from trainer import funasr_parts\n"
        "with funasr_parts._imported_when_called('scipy.optimize', 'linear_sum_assignment'):\n"
        "    from scipy.optimize import linear_sum_assignment, linprog\n"
        "import scipy.optimize\n"
        "print(linprog is scipy.optimize.linprog, linear_sum_assignment([[1]])[1].tolist())"
    )
    assert printed(code) == "True [0]\n"
