"""Graphs of the whole model: torch.export, torch.compile without a break, ONNX, and their numbers."""

import pytest
import torch

from tests.hub.strong import strong_model

pytest.importorskip("transformers", reason="needs the extra [hf]")

from dnagpt_fast import hub

pytestmark = pytest.mark.filterwarnings("ignore")
IDS = torch.tensor([[21, 60, 80, 100, 120, 33, 44, 55]])
PLAIN = {"use_cache": False, "return_dict": False}


@pytest.fixture(scope="module")
def model():
    return hub.DNAGPTForCausalLM.from_dnagpt(strong_model()).eval()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def test_export_with_and_without_a_mask(model):
    wanted = model(IDS).logits
    for more in ({}, {"attention_mask": torch.ones_like(IDS)}):
        program = torch.export.export(model, (IDS,), PLAIN | more)
        torch.testing.assert_close(program.module()(IDS, **PLAIN, **more)[0], wanted)


@pytest.mark.slow
def test_export_of_any_length(model):
    T = torch.export.Dim("T", min=2, max=40)
    shapes = {"input_ids": {1: T}, "attention_mask": {1: T}, "use_cache": None, "return_dict": None}
    program = torch.export.export(
        model, (IDS,), PLAIN | {"attention_mask": torch.ones_like(IDS)}, dynamic_shapes=shapes
    )
    mask = torch.tensor([[0, 0, 1, 1, 1]])
    found = program.module()(IDS[:, :5], **PLAIN, attention_mask=mask)[0]
    torch.testing.assert_close(found[:, 2:], model(IDS[:, 2:5]).logits)


@pytest.mark.parametrize("which", ["DNAGPTForSequenceClassification", "DNAGPTForTokenClassification"])
def test_export_of_the_classifiers(model, which):
    classifier = getattr(hub, which)(model.config).eval()
    program = torch.export.export(classifier, (IDS,), {"return_dict": False})
    torch.testing.assert_close(program.module()(IDS, return_dict=False)[0], classifier(IDS).logits)


@pytest.mark.slow
def test_compile_without_a_graph_break(model):
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    wanted = model(IDS).logits
    for more in ({"use_cache": False}, {}, {"attention_mask": torch.ones_like(IDS)}):
        torch.testing.assert_close(compiled(IDS, **more).logits, wanted)


@pytest.mark.slow
def test_onnx(model):
    """Read by the reference interpreter of the format."""
    pytest.importorskip("onnxscript", reason="pip install onnx onnxscript")
    from onnx.reference import ReferenceEvaluator

    program = torch.onnx.export(model, (IDS,), kwargs=PLAIN, dynamo=True)
    evaluator = ReferenceEvaluator(program.model_proto)
    name = program.model_proto.graph.input[0].name
    found = torch.from_numpy(evaluator.run(None, {name: IDS.numpy()})[0])
    torch.testing.assert_close(found, model(IDS).logits, atol=1e-5, rtol=1e-5)
