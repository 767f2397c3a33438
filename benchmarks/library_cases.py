"""transformers' own test mixins for our classes: library_suite.py runs this file beside the library's
`tests`."""

import unittest

from tests.causal_lm_tester import CausalLMModelTest, CausalLMModelTester
from tests.test_tokenization_common import TokenizerTesterMixin
from transformers import set_seed
from transformers.models.auto import modeling_auto

from dnagpt_fast import hub
from tests import test_modeling_common

# by these names the library finds the task of a class, for example whether it takes labels
for names, cls in (
    (modeling_auto.MODEL_MAPPING_NAMES, hub.DNAGPTModel),
    (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, hub.DNAGPTForCausalLM),
    (modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, hub.DNAGPTForSequenceClassification),
    (modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES, hub.DNAGPTForTokenClassification),
):
    names["dnagpt"] = cls.__name__


class DNAGPTTester(CausalLMModelTester):
    config_class = hub.DNAGPTConfig
    base_model_class = hub.DNAGPTModel
    causal_lm_class = hub.DNAGPTForCausalLM
    sequence_classification_class = hub.DNAGPTForSequenceClassification
    token_classification_class = hub.DNAGPTForTokenClassification

    def get_config(self):
        config = super().get_config()
        config.pad_token_id = self.pad_token_id
        return config


class DNAGPTModelTest(CausalLMModelTest, unittest.TestCase):
    model_tester_class = DNAGPTTester

    def setUp(self):
        """The library draws weights and inputs anew in each run; with a seed a test has one result."""
        super().setUp()
        set_seed(0)
        test_modeling_common.global_rng.seed(0)


class DNAGPTTokenizerTest(TokenizerTesterMixin, unittest.TestCase):
    tokenizer_class = hub.DNAGPTTokenizer
    rust_tokenizer_class = None
    test_rust_tokenizer = False
    test_slow_tokenizer = True
    from_pretrained_id = None
    integration_test_input_text = "<R>ACGTTGACGGATTACCA"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        tokenizer = hub.DNAGPTTokenizer(3)
        tokenizer.save_pretrained(cls.tmpdirname)

    def get_input_output_texts(self, tokenizer):
        return "<R>ACGTTGACG", "<R>ACGTTGACG"
