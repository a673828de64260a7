//! Hugging Face names for the tensors of GGUF files.
//!
//! A GGUF name is `token_embd.weight` or `blk.7.attn_q.weight`: a stem, for layers behind
//! `blk.N.`, and a suffix. A row of a table maps a stem and keeps the suffix; a row that names the
//! suffix too maps both. Architectures that depart from the common tables have rows of their own,
//! which are looked up first.

/// Names of GGUF and of Hugging Face.
type Table = &'static [(&'static str, &'static str)];

/// Stems outside the layers, and their names behind no prefix.
const GLOBAL: Table = &[
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
    ("rope_freqs", "model.rope_freqs"),
];

/// Stems of `blk.N.`, and their names behind `model.layers.N.`.
const LAYER: Table = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Rows of single architectures (`general.architecture`): outside the layers, and in them.
const ARCHITECTURES: &[(&str, Table, Table)] = &[
    ("gemma4", GEMMA4_GLOBAL, GEMMA4_LAYER),
    ("nemotron_h", NEMOTRON_H_GLOBAL, NEMOTRON_H_LAYER),
    ("nemotron_h_moe", NEMOTRON_H_GLOBAL, NEMOTRON_H_LAYER),
    ("qwen35", GLOBAL, QWEN35_LAYER),
    ("qwen35moe", GLOBAL, QWEN35_LAYER),
];

/// Names that files write without a suffix, where a stem alone is no name.
const BARE: [&str; 2] = ["ssm_a", "ssm_d"];

const GEMMA4_GLOBAL: Table = &[
    ("per_layer_token_embd", "model.embed_tokens_per_layer"),
    ("per_layer_model_proj", "model.per_layer_model_projection"),
    ("per_layer_proj_norm", "model.per_layer_projection_norm"),
];

const GEMMA4_LAYER: Table = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
    ("pre_ffw_norm_2", "pre_feedforward_layernorm_2"),
    ("post_ffw_norm_1", "post_feedforward_layernorm_1"),
    ("post_ffw_norm_2", "post_feedforward_layernorm_2"),
    ("layer_output_scale.weight", "layer_scalar"),
    ("inp_gate", "per_layer_input_gate"),
    ("proj", "per_layer_projection"),
    ("post_norm", "post_per_layer_input_norm"),
    ("ffn_gate_inp.scale", "router.scale"),
    ("ffn_gate_inp", "router.proj"),
    ("ffn_down_exps.scale", "router.per_expert_scale"),
    ("ffn_down_exps.weight", "experts.down_proj"),
    ("ffn_gate_up_exps.weight", "experts.gate_up_proj"),
    ("ffn_gate_exps.weight", "experts.gate_proj"),
    ("ffn_up_exps.weight", "experts.up_proj"),
];

const NEMOTRON_H_GLOBAL: Table = &[("token_embd", "model.embeddings"), ("output_norm", "model.norm_f")];

/// Every layer is one mixer behind one norm.
const NEMOTRON_H_LAYER: Table = &[
    ("attn_norm", "norm"),
    ("ssm_in", "mixer.in_proj"),
    ("ssm_conv1d", "mixer.conv1d"),
    ("ssm_dt.bias", "mixer.dt_bias"),
    // -exp(A_log), unlike the folder's `A_log`.
    ("ssm_a", "mixer.A"),
    ("ssm_d", "mixer.D"),
    ("ssm_norm", "mixer.norm"),
    ("ssm_out", "mixer.out_proj"),
    ("attn_q", "mixer.q_proj"),
    ("attn_k", "mixer.k_proj"),
    ("attn_v", "mixer.v_proj"),
    ("attn_output", "mixer.o_proj"),
    ("ffn_up", "mixer.up_proj"),
    ("ffn_down", "mixer.down_proj"),
    ("ffn_gate_inp", "mixer.gate"),
    ("exp_probs_b.bias", "mixer.gate.e_score_correction_bias"),
    ("ffn_up_exps.weight", "mixer.experts.up_proj"),
    ("ffn_down_exps.weight", "mixer.experts.down_proj"),
    ("ffn_up_shexp", "mixer.shared_experts.up_proj"),
    ("ffn_down_shexp", "mixer.shared_experts.down_proj"),
    ("ffn_latent_down", "mixer.fc1_latent_proj"),
    ("ffn_latent_up", "mixer.fc2_latent_proj"),
];

const QWEN35_LAYER: Table = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("attn_qkv", "linear_attn.in_proj_qkv"),
    ("attn_gate", "linear_attn.in_proj_z"),
    ("ssm_alpha", "linear_attn.in_proj_a"),
    ("ssm_beta", "linear_attn.in_proj_b"),
    ("ssm_conv1d", "linear_attn.conv1d"),
    ("ssm_dt.bias", "linear_attn.dt_bias"),
    // -exp(A_log), unlike the folder's `A_log`.
    ("ssm_a", "linear_attn.A"),
    ("ssm_norm", "linear_attn.norm"),
    ("ssm_out", "linear_attn.out_proj"),
    ("ffn_gate_inp", "mlp.gate"),
    ("ffn_gate_up_exps.weight", "mlp.experts.gate_up_proj"),
    ("ffn_gate_exps.weight", "mlp.experts.gate_proj"),
    ("ffn_up_exps.weight", "mlp.experts.up_proj"),
    ("ffn_down_exps.weight", "mlp.experts.down_proj"),
    ("ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
    ("ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_expert.up_proj"),
    ("ffn_down_shexp", "mlp.shared_expert.down_proj"),
];

/// The Hugging Face name of GGUF tensor `name` in a model of `architecture`.
///
/// A name that no table has keeps its GGUF spelling: it is still listed, and a model that needs it
/// can ask for it.
pub fn hugging_face_name(architecture: &str, name: &str) -> String {
    let own = ARCHITECTURES.iter().find(|(known, ..)| *known == architecture);
    let (own_global, own_layer) = own.map_or((GLOBAL, LAYER), |&(_, global, layer)| (global, layer));
    let mapped = match layer_and_rest(name) {
        Some((layer, rest)) => look_up([own_layer, LAYER], rest).map(|rest| format!("model.layers.{layer}.{rest}")),
        None => look_up([own_global, GLOBAL], name),
    };
    mapped.unwrap_or_else(|| name.to_owned())
}

/// Splits `blk.N.rest`. A number with leading zeros would be a second spelling of the same layer
/// and is none.
fn layer_and_rest(name: &str) -> Option<(&str, &str)> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    layer.parse::<u32>().is_ok_and(|n| n.to_string() == layer).then_some((layer, rest))
}

/// The first table with a row for `name`, with or without its suffix, says what it is called.
fn look_up(tables: [Table; 2], name: &str) -> Option<String> {
    let find = |table: Table, name: &str| table.iter().find(|(gguf, _)| *gguf == name).map(|(_, name)| *name);
    tables.into_iter().find_map(|table| {
        let whole = find(table, name).filter(|_| name.contains('.') || BARE.contains(&name)).map(str::to_owned);
        whole.or_else(|| {
            let (stem, suffix) = name.rsplit_once('.')?;
            Some(format!("{}.{suffix}", find(table, stem)?))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::hugging_face_name as name;

    #[test]
    fn dense_decoders_have_their_hugging_face_names() {
        for (gguf, expected) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output.weight", "lm_head.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("rope_freqs.weight", "model.rope_freqs.weight"),
            ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"),
            ("blk.12.attn_k.bias", "model.layers.12.self_attn.k_proj.bias"),
            ("blk.3.attn_k_norm.weight", "model.layers.3.self_attn.k_norm.weight"),
            ("blk.3.ffn_norm.weight", "model.layers.3.post_attention_layernorm.weight"),
            ("blk.105.ffn_down.weight", "model.layers.105.mlp.down_proj.weight"),
        ] {
            assert_eq!(name("llama", gguf), expected);
        }
    }

    #[test]
    fn an_architecture_can_rename_and_drop_suffixes() {
        for (gguf, expected) in [
            ("blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"),
            ("blk.0.ffn_norm.weight", "model.layers.0.pre_feedforward_layernorm.weight"),
            ("blk.0.layer_output_scale.weight", "model.layers.0.layer_scalar"),
            ("blk.0.ffn_gate_inp.weight", "model.layers.0.router.proj.weight"),
            ("blk.0.ffn_gate_inp.scale", "model.layers.0.router.scale"),
            ("per_layer_token_embd.weight", "model.embed_tokens_per_layer.weight"),
        ] {
            assert_eq!(name("gemma4", gguf), expected);
        }
    }

    #[test]
    fn mixers_have_their_hugging_face_names() {
        for (gguf, expected) in [
            ("token_embd.weight", "model.embeddings.weight"),
            ("output.weight", "lm_head.weight"),
            ("output_norm.weight", "model.norm_f.weight"),
            ("blk.0.attn_norm.weight", "model.layers.0.norm.weight"),
            ("blk.0.ssm_a", "model.layers.0.mixer.A"),
            ("blk.0.ssm_d", "model.layers.0.mixer.D"),
            ("blk.0.ssm_dt.bias", "model.layers.0.mixer.dt_bias"),
            ("blk.0.ssm_conv1d.bias", "model.layers.0.mixer.conv1d.bias"),
            ("blk.3.attn_v.weight", "model.layers.3.mixer.v_proj.weight"),
            ("blk.4.exp_probs_b.bias", "model.layers.4.mixer.gate.e_score_correction_bias"),
            ("blk.4.ffn_gate_inp.weight", "model.layers.4.mixer.gate.weight"),
            ("blk.4.ffn_up_exps.weight", "model.layers.4.mixer.experts.up_proj"),
        ] {
            assert_eq!(name("nemotron_h_moe", gguf), expected);
        }
        for (gguf, expected) in [
            ("blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"),
            ("blk.0.post_attention_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
            ("blk.0.ssm_a", "model.layers.0.linear_attn.A"),
            ("blk.0.ssm_dt.bias", "model.layers.0.linear_attn.dt_bias"),
            ("blk.0.ssm_alpha.weight", "model.layers.0.linear_attn.in_proj_a.weight"),
            ("blk.3.attn_q.weight", "model.layers.3.self_attn.q_proj.weight"),
            ("blk.3.ffn_gate_inp_shexp.weight", "model.layers.3.mlp.shared_expert_gate.weight"),
            ("blk.3.ffn_down_exps.weight", "model.layers.3.mlp.experts.down_proj"),
            ("blk.4.nextn.eh_proj.weight", "blk.4.nextn.eh_proj.weight"),
        ] {
            assert_eq!(name("qwen35moe", gguf), expected);
        }
    }

    #[test]
    fn unknown_names_keep_their_spelling() {
        for gguf in
            ["blk.0.ssm_in.weight", "blk.x.attn_q.weight", "blk.01.attn_q.weight", "blk.0", "v", "", "a.b", "output"]
        {
            assert_eq!(name("llama", gguf), gguf);
        }
    }
}
