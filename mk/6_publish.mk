##@ Networks shown and published: of EXP=, or the first of MEMBERS
# $(model) is the experiment, $(checkpoint) its file, $(exported) where its exports lie, less their endings.
.PHONY: summary export bioimageio kaggle-notebook kaggle-model

summary: | $(ready)  ## layers, sizes, parameters and multiply-adds; SIZE=572
	$(quiet)$(python) scripts/summary.py --config $(configs)/$(model).toml --size $(size)

export: $(exported).onnx  ## ONNX and torch.export of a trained network; CHECKPOINT=<model.pt, .safetensors>

$(exported).onnx $(exported).pt2 &: $(checkpoint) | $(publish)
	$(say) "export   "$(exported).onnx
	$(quiet)$(python) scripts/export.py --checkpoint $(checkpoint) --onnx $(exported).onnx --program $(exported).pt2

bioimageio: $(dir_exported)bioimageio.zip  ## a package for bioimage.io, tested by its own tool; CHECKPOINT=

$(dir_exported)bioimageio.zip: $(checkpoint) $(exported).onnx | $(publish)
	$(say) "pack     "$(dir_exported)bioimageio.zip
	$(quiet)$(python) scripts/pack_bioimageio.py --checkpoint $(checkpoint) --onnx $(exported).onnx --out $(dir_exported)bioimageio.zip

# the notebook trains MEMBERS, or predicts SUBSET with WEIGHTS
notebook_flags = $(if $(weights),--weights $(weights) --stage $(subset),--members '$(members)' \
  --ensemble-weights '$(ensemble_weights)' --folds '$(folds)')

kaggle-notebook: | $(ready)  ## a notebook for Kaggle's GPU: KAGGLE_USER=<name>; with WEIGHTS= it only predicts
	$(quiet)$(python) scripts/pack_notebook.py --out $(kaggle) --user $(or $(kaggle_user),'') $(notebook_flags)
	$(quiet)$(python) -m pip download --quiet --no-deps --only-binary=:all: --dest $(kaggle)/dataset \
	  --requirement $(kaggle)/dataset/wheels.txt

kaggle-model: $(exported).onnx  ## a folder for Kaggle Models: KAGGLE_USER=<name>, CHECKPOINT=
	$(quiet)$(python) scripts/pack_model.py --files $(exported).onnx $(checkpoint) --out $(kaggle)/model --user $(or $(kaggle_user),'') \
	  --experiment $(model)
