"""Settings: unknown and misspelt names and wrong types are refused by name."""

import json

import pytest

from dnagpt_fast.finetune.settings import load_finetune_config
from dnagpt_fast.pretrain.settings import PretrainConfig, load_config
from dnagpt_fast.training.settings import ConfigError, from_tree, settings_of_run


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("task.positive=1", "task", "positive", "1"),
        ("task.positive='1'", "task", "positive", "1"),
        ("task.positive=1e-4", "task", "positive", "1e-4"),
        ("task.positive=true", "task", "positive", "true"),
        ("task.positive=", "task", "positive", ""),
        ("task.classes=[0,1]", "task", "classes", ("0", "1")),
        ("task.classes=0, 1", "task", "classes", ("0", "1")),
        (
            'task.classes=["a, b", \'c"\', 2024-11-25, d e]',
            "task",
            "classes",
            ("a, b", 'c"', "2024-11-25", "d e"),
        ),
        ("task.classes=[]", "task", "classes", ()),
        ("data.region=20", "data", "region", "20"),
        ("data.region=HLA-A*01:01:5-9", "data", "region", "HLA-A*01:01:5-9"),
        ("data.label_column=1_000", "data", "label_column", "1_000"),
        ("split.shares=0.5,0.25,0.25", "split", "shares", (0.5, 0.25, 0.25)),
        ("split.shares=[0.5, 0.25, 0.25]", "split", "shares", (0.5, 0.25, 0.25)),
        ("optimizer.lr=.5", "optimizer", "lr", 0.5),
        ("split.drop_overlaps=False", "split", "drop_overlaps", False),
        ("run.seed=1_000", "run", "seed", 1000),
    ],
)
def test_an_override_is_typed_by_its_setting(override, section, key, value):
    config = load_finetune_config(None, ["data.path=x.csv", override])
    assert getattr(getattr(config, section), key) == value


@pytest.mark.parametrize("name", ["2024-11-25", "1e-4", "true", "[a]", "a=b", "12:30:00", "it's"])
def test_any_name_is_a_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    config = load_finetune_config(None, [f"data.path={name}", f"start.path={name}"])
    assert config.data.path == config.start.path == str(tmp_path / name)


def test_whole_numbers_of_a_file_are_names_where_names_are_wanted(tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes(b'\xef\xbb\xbf[task]\nclasses = [0, 1]\npositive = 1\n[data]\npath = "x.csv"\n')
    task = load_finetune_config(path).task
    assert (task.classes, task.positive) == (("0", "1"), "1")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[run]\n# caf\xe9\n", r"a.toml:2: the line b'# caf\\xe9' is no UTF-8"),
        (b"a = " + b"[" * 9999, r"a.toml cannot be read as settings"),
        (b"[run]\nsteps = " + b"9" * 5000, r"a.toml cannot be read as settings: Exceeds the limit"),
        (b"[run]\nsteps = " + b"9" * 30, r"a.toml: run.steps is a number of 30 digits: wanted one below 2"),
        (b"[optimizer]\nlr = 1" + b"0" * 400, r"optimizer.lr is a number of 401 digits"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, said):
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load_config(tmp_path / "a.toml")


@pytest.mark.parametrize("content", ['{"settings": []}', '{"settings": 3}', "[]", "3", "{}", "[" * 9999])
def test_a_config_json_without_settings(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json cannot be read as settings"):
        load_config(tmp_path / "config.json")


def test_no_file_gives_the_defaults():
    assert load_config(None) == PretrainConfig()


def test_file_and_overrides(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(
        '[optimizer]\nlr = 1e-3\nweight_decay = 1\n[data]\ngenomes = [{path = "x.2bit", held_out = ["1"]}]\n'
    )
    config = load_config(path, ["optimizer.lr=3e-4", "model.name=dna_gpt3b_m", 'template.gc_prompt=["M"]'])
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (3e-4, 1.0)
    assert config.model.name == "dna_gpt3b_m"
    assert config.template.gc_prompt == ("M",)
    assert config.data.genomes[0].path == str(tmp_path / "x.2bit")
    assert config.data.genomes[0].held_out == ("1",)


def test_genomes_of_the_command_line_count_from_where_it_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(None, ["data.genome_table=mix.tsv"], ["mouse=a.2bit", "S=/b.2bit"])
    assert [(genome.species, genome.path) for genome in config.data.genomes] == [
        ("mouse", str(tmp_path / "a.2bit")),
        ("S", "/b.2bit"),
    ]
    assert config.data.genome_table == str(tmp_path / "mix.tsv")


def test_written_settings_are_read_back():
    config = load_config(None, ["run.steps=10", 'data.genomes=[{path="/x", held_out=["1", "2"]}]'])
    assert from_tree(PretrainConfig, json.loads(json.dumps(config.to_dict()))) == config


def test_settings_of_a_run_folder(tmp_path):
    config = load_config(None, ["run.steps=10"])
    (tmp_path / "config.json").write_text(json.dumps({"settings": config.to_dict()}))
    assert load_config(settings_of_run(tmp_path)) == config
    with pytest.raises(ConfigError, match="holds no run: it has no config"):
        settings_of_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.learning_rate=1", r"unknown key 'optimizer.learning_rate': the known ones are lr, beta1"),
        ("optimiser.lr=1", r"unknown key 'optimiser': the known ones are model, vocabulary"),
        (
            'data.genomes=[{file="x"}]',
            r"unknown key 'data.genomes\[0\].file': the known ones are path, species",
        ),
        ("optimizer.lr=fast", "optimizer.lr = 'fast': wanted float, got str"),
        ("run.steps=1.5", "run.steps = 1.5: wanted int, got float"),
        ("run.steps=true", "run.steps = True: wanted int, got bool"),
        ("optimizer.lr=true", "optimizer.lr = True: wanted float, got bool"),
        ("optimizer=3", "optimizer = 3: wanted a section"),
        ("data.genomes=x.2bit", "data.genomes = 'x.2bit': wanted a list"),
        ("data.genomes=[1]", r"data.genomes\[0\] = 1: wanted a section"),
        ("run.steps", "wanted section.key=value"),
        ("run.steps.more=1", "unknown key|no section|wanted int"),
        ("run.steps=1\nrun.seed=2", "wanted int, got str"),
        ("run.steps=0", "run.steps = 0: wanted at least 1"),
        ("optimizer.lr=nan", "optimizer.lr = nan: wanted at least 0"),
        ("run.precision=fp8", "wanted auto or fp32 or bf16"),
        ("parallel.sharding=zero", "parallel.sharding = 'zero': wanted ddp or fsdp"),
        ("data.held_out_tail=1.0", "wanted 0 <= share < 1"),
        ("template.gc_prompt=[]", "need at least one token"),
    ],
)
def test_bad_settings_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["optimizer.kind=muon", "parallel.sharding=fsdp"],
            r"optimizer.kind = 'muon' with parallel.sharding = 'fsdp': .* wanted parallel.sharding = 'ddp', or",
        ),
        (["optimizer.lr=inf"], "optimizer.lr = inf: wanted at least 0, finite"),
        (["loss.soft_masked_weight=-1"], "loss.soft_masked_weight = -1.0: wanted at least 0"),
    ],
)
def test_settings_that_cannot_go_together_are_both_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides)


def test_the_file_is_named(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("[run]\nstep = 3\n")
    with pytest.raises(ConfigError, match=r"a\.toml: unknown key 'run.step'"):
        load_config(path)
    path.write_text("[run\n")
    with pytest.raises(ConfigError, match=r"a\.toml cannot be read as settings"):
        load_config(path)
    with pytest.raises(FileNotFoundError):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize("text", ["human", "=x.2bit", "human="])
def test_a_genome_option_needs_species_and_file(text):
    with pytest.raises(ConfigError, match="wanted SPECIES=FILE"):
        load_config(None, [], [text])
