"""Pre-training that starts from an existing model: on other genomes, with a species token that it was not
trained on."""

import shutil

import pytest
import torch

from dnagpt_fast.cli.app import main
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.pretrain.job import PretrainingRun
from dnagpt_fast.pretrain.run import load_run, pretrain
from dnagpt_fast.pretrain.settings import load_config
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.settings import ConfigError
from dnagpt_fast.vocab import Vocabulary, reserved_id
from dnagpt_fast.weights.forms import save_model
from tests.pretrain.runs import CONTIG, GENOME


@pytest.fixture
def model(tmp_path):
    """A model with k = 2, in a file."""
    torch.manual_seed(4)
    vocabulary = Vocabulary(2)
    made = DNAGPT(len(vocabulary), max_len=24, num_layers=1, num_heads=2, embedding_dim=16)
    save_model(made, KmerTokenizer.of(vocabulary), tmp_path / "begin.safetensors", "safetensors")
    return made


def settings(tmp_path, *overrides: str, species: str = "W"):
    genomes = f'data.genomes=[{{path="{GENOME}", species="{species}", held_out=["{CONTIG}:900000-1000000"]}}]'
    short = ("run.steps=4", "run.batch_size=4", "schedule.warmup_steps=1", "validation.max_windows=4")
    start = f"start.path={tmp_path / 'begin.safetensors'}"
    return load_config(None, [genomes, *short, start, "checkpoint.every_steps=2", *overrides])


def test_the_first_step_sees_the_model_that_was_given(tmp_path, model):
    job = PretrainingRun(settings(tmp_path), Processes())
    for name, tensor in job.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert job.maker.vocabulary == Vocabulary(2)
    assert job.maker.n_tokens == 24  # its max_len
    # a species that the published models do not name takes a free reserved token
    assert set(job.batch_at(0, 0).token_ids[:, 0].tolist()) == {reserved_id("W")}
    assert job.record()["start"]["path"].endswith("begin.safetensors")
    assert len(job.record()["start"]["sha256"]) == 64


def test_a_run_goes_on_without_the_model_it_began_with(tmp_path, model):
    run = tmp_path / "run"
    pretrain(settings(tmp_path), run)
    (tmp_path / "begin.safetensors").unlink()
    outcome = pretrain(settings(tmp_path, "run.steps=8"), run, resume=True)
    assert outcome.steps == 8
    trained, vocabulary, record = load_run(run)
    assert vocabulary == Vocabulary(2)
    assert record["settings"]["schedule"]["restarts"] == [4]
    assert record["start"]["sha256"]
    assert not torch.equal(trained.state_dict()["mlm_head.3.weight"], model.state_dict()["mlm_head.3.weight"])


def test_files_may_move_and_not_change(tmp_path, model, capsys):
    """Genome and start are known again by their contents, wherever they lie; others are refused by name."""
    shutil.copy(GENOME, tmp_path / "a.2bit")
    genome = f'data.genomes=[{{path="{tmp_path}/a.2bit", held_out=["{CONTIG}:900000-1000000"]}}]'
    run, start, moved = tmp_path / "run", tmp_path / "begin.safetensors", tmp_path / "b.2bit"
    pretrain(settings(tmp_path, genome), run)
    (tmp_path / "a.2bit").rename(moved)
    start.rename(tmp_path / "other.safetensors")

    def again(*options: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["pretrain", "--out", str(run), "--resume", *options])
        said = capsys.readouterr().err
        assert bool(ended.value.code) == ("error" in said), said
        return said

    there = ("--genome", f"human={moved}", "--start", str(tmp_path / "other.safetensors"))
    assert "resuming from" in again(*there)
    model.transformer.wte.weight.data[0] += 1
    save_model(model, KmerTokenizer(2), start, "safetensors")
    assert f"weights in {start.with_name('third')} (start.path) was" in again(
        *there[:3], str(start.rename(start.with_name("third")))
    )
    # contigs and lengths are the same, one base is another
    data = bytearray(moved.read_bytes())
    data[-1000] ^= 1
    moved.write_bytes(data)
    assert f"content_hash of {moved} (data.genomes) was" in again(*there)
    assert "has no 'mouse'" in again("--genome", f"mouse={moved}")


def test_a_run_folder_with_its_vocabulary_can_be_the_start(tmp_path, model):
    pretrain(settings(tmp_path), tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    second = load_config(
        None,
        [
            *(f"start.path={tmp_path / 'copy'}", "run.steps=1", "schedule.warmup_steps=0"),
            f'data.genomes=[{{path="{GENOME}", species="yeast"}}]',
        ],
    )
    job = PretrainingRun(second, Processes())
    first, _, _ = load_run(tmp_path / "first")
    assert torch.equal(job.model.mlm_head[3].weight, first.mlm_head[3].weight)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.num_layers=3"], r"\[model\] settings with start.path"),
        (["vocabulary.k=3"], r"\[vocabulary\] settings with start.path"),
        (["loss.vocabulary=occurring"], "loss.vocabulary = 'occurring' with start.path = .* rows .* differ"),
        (["data.n_kmers=20"], "model.max_len is 24"),
    ],
)
def test_settings_that_contradict_the_start_are_named(tmp_path, model, overrides, message):
    with pytest.raises(ConfigError, match=message):
        PretrainingRun(settings(tmp_path, *overrides), Processes())


def test_a_species_that_is_no_token_lists_those_that_are(tmp_path, model):
    with pytest.raises(ConfigError, match=r"species 'axolotl': wanted one of human, .* or a reserved token"):
        PretrainingRun(settings(tmp_path, species="axolotl"), Processes())


def test_equal_rows_may_take_the_occurring_vocabulary(tmp_path, model):
    with torch.no_grad():
        model.mlm_head[3].weight.copy_(model.mlm_head[3].weight[:1].expand_as(model.mlm_head[3].weight))
        model.mlm_head[3].bias.fill_(0.5)
    (tmp_path / "begin.safetensors").unlink()
    save_model(model, KmerTokenizer.of(Vocabulary(2)), tmp_path / "begin.safetensors", "safetensors")
    occurring = settings(tmp_path, "loss.vocabulary=occurring")
    assert PretrainingRun(occurring, Processes()).losses.occurring is not None
    # equal rows are wanted only at the start: a resumed run has them from its checkpoint
    pretrain(occurring, tmp_path / "run")
    longer = settings(tmp_path, "loss.vocabulary=occurring", "run.steps=5")
    assert pretrain(longer, tmp_path / "run", resume=True).steps == 5


def test_without_the_model_the_message_is_about_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"begin\.safetensors"):
        PretrainingRun(settings(tmp_path), Processes())


def test_a_name_that_is_no_packaged_model_lists_those_that_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(None, [f'data.genomes=[{{path="{GENOME}", species="W"}}]', "start.path=dna_gpt6m"])
    with pytest.raises(
        FileNotFoundError, match=r"dna_gpt6m is no file, no folder and no packaged model: .*dna_gpt6m_m"
    ):
        PretrainingRun(config, Processes())
