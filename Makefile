# The pipeline as a graph of files. `make` lists the targets; README.md explains them.
#
# Every target below a folder is a file that is skipped while it is newer than what it is made from. Code is no
# prerequisite (a changed comment must not cost a night of training): `make -W configs/unet.toml train` forces.

SOURCE      ?= bbbc
DATA        ?= data
# the folds; data/splits_modality.csv holds out one modality after the other
SPLITS      ?= $(DATA)/splits.csv
RUNS        ?= runs
SUBMISSIONS ?= submissions
PACKED      ?= weights
WEIGHTS     ?=
CONFIGS     ?= configs
MEMBERS     ?= encoder_resunet resunet_wide
# of the members in the ensemble's mean, in their order; found out of fold where empty
SHARES      ?=
FOLDS       ?= 0 1 2 3 4
EXP         ?= ensemble
MESSAGE     ?= $(EXP)
SIZE        ?= 256
TRUTH       ?= $(DATA)/raw/stage1_solution.csv
REPORT      ?= report.html
EDA         ?= eda.html
# a network to publish: of EXP, or else of the first member, the first fold; where it is not trained here, as shipped
MODEL       ?= $(if $(filter file,$(origin EXP)),$(firstword $(MEMBERS)),$(EXP))
FIRST_FOLD   = $(RUNS)/$(MODEL)/fold_0/best.pt
CHECKPOINT  ?= $(firstword $(wildcard $(FIRST_FOLD) $(PACKED)/$(MODEL)/fold_0.safetensors) $(FIRST_FOLD))
KAGGLE      ?= upload
KAGGLE_USER ?= $(KAGGLE_USERNAME)
DEVICE      ?= auto
DEVICES     ?= 1
NODES       ?= 1
WORKERS     ?= 1
# 1 compiles the network before it is trained
COMPILE     ?=

PYTHON ?= .venv/bin/python
READY  := $(if $(filter file,$(origin PYTHON)),.venv/installed.txt)
PUBLISH := $(if $(filter file,$(origin PYTHON)),.venv/publishing.txt)
DEVELOP := $(if $(filter file,$(origin PYTHON)),.venv/development.txt)

export PYTHONPATH := $(CURDIR)/src$(if $(PYTHONPATH),:$(PYTHONPATH))
# On a CPU: give the memory of one step to the next instead of returning it, and let idle threads sleep.
export MALLOC_MMAP_THRESHOLD_ ?= 4294967296
export MALLOC_TRIM_THRESHOLD_ ?= 8589934592
export OMP_WAIT_POLICY ?= PASSIVE

ifneq ($(SPLITS),$(DATA)/splits.csv)
ifeq ($(RUNS),runs)
$(error SPLITS=$(SPLITS): networks of other folds would take the place of those in runs/; give RUNS=<folder> as well)
endif
endif

EXPERIMENTS := $(notdir $(basename $(wildcard $(CONFIGS)/*.toml)))
SCORED      := otsu $(MEMBERS) $(if $(word 2,$(MEMBERS)),ensemble)

.DELETE_ON_ERROR:
.PHONY: help setup data splits train predict weights segment submission leaderboard standings report score submit summary export kaggle-notebook kaggle-model bioimageio tensorboard demo test lint format bench
.PHONY: compare learning-curve ablation eda

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  make submissions/<experiment>.csv   train, predict and tune one of: $(EXPERIMENTS)"
	@echo "settings: SOURCE= SPLITS= MEMBERS='...' SHARES='...' WEIGHTS= FOLDS='...' DEVICE= DEVICES= NODES= WORKERS= COMPILE=1 EXP= TRUTH= PYTHON="

# --- set-up ---------------------------------------------------------------------------------------------------------

setup: $(READY)  ## .venv with the pinned requirements (PYTHON=... uses yours instead)

.venv/installed.txt: requirements.txt
	test -x .venv/bin/python || python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt
	.venv/bin/python -m pip install --quiet --no-deps --editable .
	.venv/bin/python -m pip freeze --exclude-editable > $@.part && mv $@.part $@

.venv/development.txt: .venv/installed.txt pyproject.toml
	.venv/bin/python -m pip install --quiet --editable '.[dev]'
	.venv/bin/python -m pip freeze --exclude-editable > $@.part && mv $@.part $@

.venv/publishing.txt: .venv/installed.txt pyproject.toml
	.venv/bin/python -m pip install --quiet --editable '.[publish]'
	.venv/bin/python -m pip freeze --exclude-editable > $@.part && mv $@.part $@

# --- data -----------------------------------------------------------------------------------------------------------

data: $(DATA)/processed/index.csv  ## fetch and prepare the images; SOURCE=bbbc|kaggle|fixes|<folder>|<URL>

splits: $(DATA)/splits.csv  ## folds that keep mosaics and near-duplicates together

$(DATA)/raw/manifest.csv: | $(READY)
	$(PYTHON) scripts/download.py --source $(SOURCE) --out $(DATA)/raw

$(DATA)/processed/index.csv: $(DATA)/raw/manifest.csv | $(READY)
	$(PYTHON) scripts/prepare.py --raw $(DATA)/raw --out $(DATA)/processed

$(DATA)/splits.csv: $(DATA)/processed/index.csv | $(READY)
	$(PYTHON) scripts/make_folds.py --index $< --out $@ --folds $(if $(word 2,$(FOLDS)),$(words $(FOLDS)),5)

$(DATA)/splits_modality.csv: $(DATA)/processed/index.csv | $(READY)
	$(PYTHON) scripts/make_folds.py --index $< --out $@ --by modality

eda: $(EDA)  ## eda.html and eda.csv: sizes, modalities, nuclei, annotations worth a second look, contact sheets

# folds where there are some, or where this very command makes them
DEALT := $(or $(wildcard $(DATA)/splits.csv),$(if $(filter splits,$(MAKECMDGOALS)),$(DATA)/splits.csv))

$(EDA) $(basename $(EDA)).csv &: $(DATA)/processed/index.csv $(DEALT) | $(READY)
	$(PYTHON) scripts/eda.py --processed $(<D) $(if $(DEALT),--splits $(DEALT)) \
	  --page $(EDA) --table $(basename $(EDA)).csv

# --- experiments: $(1) is the experiment, $(2) the fold -----------------------------------------------------------------

# what the config $(2) itself says of the text $(1)
SAID = $(shell sed -n 's/^$(1) *= *"\(.*\)".*/\1/p' $(2))
# a config and those that it extends
CHAIN = $(1) $(foreach other,$(call SAID,extends,$(1)),$(call CHAIN,$(dir $(1))$(other)))
# what the first of the configs $(2) that says anything says of the text $(1)
FIRST_SAID = $(firstword $(foreach config,$(2),$(call SAID,$(1),$(config))))

define FOLD
$(RUNS)/$(1)/fold_$(2)/best.pt: $(CONFIGURED) $(SPLITS) $(foreach start,$(START),$(if $(wildcard $(PACKED)/$(start)/fold_$(2).safetensors),,$(RUNS)/$(start)/fold_$(2)/best.pt)) $(foreach other,$(PSEUDO),$(RUNS)/$(other)/fold_$(2)/test.npz $(RUNS)/$(other)/cv.json) | $(READY)
	$(PYTHON) scripts/train.py --config $$< --processed $(DATA)/processed --splits $(SPLITS) --fold $(2) \
	  --out $$(@D) --device $(DEVICE) --devices $(DEVICES) --nodes $(NODES) --workers $(WORKERS)$(if $(COMPILE), --compile)

$(RUNS)/$(1)/fold_$(2)/oof.npz $(RUNS)/$(1)/fold_$(2)/test.npz &: $(RUNS)/$(1)/fold_$(2)/best.pt | $(READY)
	$(PYTHON) scripts/predict.py --checkpoint $$< --processed $(DATA)/processed --splits $(SPLITS) \
	  --oof $(RUNS)/$(1)/fold_$(2)/oof.npz --test $(RUNS)/$(1)/fold_$(2)/test.npz --device $(DEVICE) \
	  --devices $(DEVICES) --nodes $(NODES)
endef

# for all folds: its configs, the experiment whose weights it trains further, the one that labels the test images for it
define RUN
$(eval CONFIGURED := $(call CHAIN,$(CONFIGS)/$(1).toml))
$(eval START := $(call FIRST_SAID,start,$(CONFIGURED)))
$(eval PSEUDO := $(call FIRST_SAID,pseudo_labels,$(CONFIGURED)))
$(foreach fold,$(FOLDS),$(eval $(call FOLD,$(1),$(fold))))
$(RUNS)/$(1)/oof.npz: $(foreach fold,$(FOLDS),$(RUNS)/$(1)/fold_$(fold)/oof.npz) | $(READY)
	$(PYTHON) scripts/ensemble.py --inputs $$^ --out $$@ --index $(DATA)/processed/index.csv --subset train

$(RUNS)/$(1)/test.npz: $(foreach fold,$(FOLDS),$(RUNS)/$(1)/fold_$(fold)/test.npz) | $(READY)
	$(PYTHON) scripts/ensemble.py --inputs $$^ --out $$@ --index $(DATA)/processed/index.csv --subset test
endef

$(foreach experiment,$(EXPERIMENTS),$(eval $(call RUN,$(experiment))))

# several members whose shares are not given
FOUND := $(if $(SHARES),,$(if $(word 2,$(MEMBERS)),$(RUNS)/ensemble/shares.json))

$(RUNS)/ensemble/shares.json: $(foreach member,$(MEMBERS),$(RUNS)/$(member)/oof.npz) $(SPLITS) | $(READY)
	$(PYTHON) scripts/weigh.py --inputs $(filter %.npz,$^) --processed $(DATA)/processed --splits $(SPLITS) --out $@

$(RUNS)/ensemble/oof.npz $(RUNS)/ensemble/test.npz: $(RUNS)/ensemble/%.npz: $(foreach member,$(MEMBERS),$(RUNS)/$(member)/%.npz) $(FOUND) | $(READY)
	$(PYTHON) scripts/ensemble.py --inputs $(filter %.npz,$^) --out $@ --index $(DATA)/processed/index.csv \
	  --subset $(if $(filter oof,$*),train,test) $(if $(SHARES),--weights $(SHARES)) \
	  $(if $(FOUND),--shares $(FOUND) --splits $(SPLITS))

# Targets by name, not by pattern alone: make takes what only a pattern names for a passing product, and makes none of it
# where what comes last is there already, as in a fresh clone the CSVs are.
$(foreach run,$(EXPERIMENTS) ensemble,$(RUNS)/$(run)/cv.json): $(RUNS)/%/cv.json: $(RUNS)/%/oof.npz $(SPLITS) | $(READY)
	$(PYTHON) scripts/tune.py --maps $< --processed $(DATA)/processed --splits $(SPLITS) --out $@

$(foreach run,$(EXPERIMENTS) ensemble,$(SUBMISSIONS)/$(run).csv): $(SUBMISSIONS)/%.csv: $(RUNS)/%/test.npz $(RUNS)/%/cv.json | $(READY)
	$(PYTHON) scripts/make_submission.py --maps $< --cv $(RUNS)/$*/cv.json --processed $(DATA)/processed --out $@

$(RUNS)/otsu/cv.json $(SUBMISSIONS)/otsu.csv &: $(SPLITS) | $(READY)
	$(PYTHON) scripts/otsu.py --processed $(DATA)/processed --splits $< --cv $(RUNS)/otsu/cv.json \
	  --submission $(SUBMISSIONS)/otsu.csv

# --- weights to pass on: WEIGHTS is a file or a folder of them, or the card of an ensemble, and stands for a run of its own --

SHIPPED := $(subst /,_,$(patsubst %/,%,$(basename $(WEIGHTS))))
# the folders of an ensemble, which lie beside its card
SHIPPED_MEMBERS := $(if $(filter %.json,$(WEIGHTS)),$(shell sed -n '/"members"/,/}/s/^ *"\([^"]*\)": [0-9].*/\1/p' $(WEIGHTS)))
FILES_OF = $(if $(filter %.safetensors,$(1)),$(1),$(sort $(wildcard $(1:%/=%)/*.safetensors)))

define PACK
$(PACKED)/$(1)/README.md: $(RUNS)/$(1)/cv.json $(foreach fold,$(FOLDS),$(RUNS)/$(1)/fold_$(fold)/best.pt) | $(READY)
	$(PYTHON) scripts/make_weights.py --checkpoints $$(filter %.pt,$$^) --cv $$< --out $$@
endef

$(foreach experiment,$(EXPERIMENTS),$(eval $(call PACK,$(experiment))))

weights: $(PACKED)/$(if $(filter ensemble,$(EXP)),ensemble.json,$(EXP)/README.md)  ## weights/EXP: a file a fold with config and post-processing; EXP=ensemble: of MEMBERS, and their card

# not where they are used as they came: nothing is to be trained for them then
ifeq ($(WEIGHTS),)
$(PACKED)/ensemble.json: $(RUNS)/ensemble/cv.json $(foreach member,$(MEMBERS),$(PACKED)/$(member)/README.md) | $(READY)
	$(PYTHON) scripts/pack_ensemble.py --members $(patsubst %/README.md,%,$(filter %/README.md,$^)) --cv $< \
	  --shares $(RUNS)/ensemble/shares.json --out $@
endif

$(PACKED)/%/README.md:
	@echo "error: EXP=$*: no config of that name; weights are of one experiment, of: $(EXPERIMENTS)" >&2; exit 1

ifneq ($(WEIGHTS),)
# $(1) is the folder of the maps, $(2) the file of weights
define SHIP
$(1)/$(notdir $(basename $(2)))/test.npz: $(2) $(DATA)/processed/index.csv | $(READY)
	$(PYTHON) scripts/predict.py --weights $$< --processed $(DATA)/processed --test $$@ --device $(DEVICE)
endef

# $(1) as above, $(2) the file or folder of weights
define SHIP_ALL
$(foreach file,$(call FILES_OF,$(2)),$(eval $(call SHIP,$(1),$(file))))
$(1)/test.npz: $(foreach file,$(call FILES_OF,$(2)),$(1)/$(notdir $(basename $(file)))/test.npz) | $(READY)
	$$(if $$^,,$$(error $(2): no .safetensors there; name a file or folder of weights, or make one with `make weights`))
	$(PYTHON) scripts/ensemble.py --inputs $$^ --out $$@ --index $(DATA)/processed/index.csv --subset test
endef

ifeq ($(SHIPPED_MEMBERS),)
$(eval $(call SHIP_ALL,$(RUNS)/$(SHIPPED),$(WEIGHTS)))
else
$(foreach member,$(SHIPPED_MEMBERS),$(eval $(call SHIP_ALL,$(RUNS)/$(SHIPPED)/$(member),$(dir $(WEIGHTS))$(member))))

$(RUNS)/$(SHIPPED)/test.npz: $(foreach member,$(SHIPPED_MEMBERS),$(RUNS)/$(SHIPPED)/$(member)/test.npz) $(WEIGHTS) | $(READY)
	$(PYTHON) scripts/ensemble.py --inputs $(filter %.npz,$^) --out $@ --index $(DATA)/processed/index.csv \
	  --subset test --shares $(WEIGHTS)
endif

$(SUBMISSIONS)/$(SHIPPED).csv: $(RUNS)/$(SHIPPED)/test.npz | $(READY)
	$(PYTHON) scripts/make_submission.py --maps $< --weights $(WEIGHTS) --processed $(DATA)/processed --out $@
endif

segment: | $(READY)  ## your own images: IMAGES=<folder> OUT=<folder>, also WEIGHTS= CHANNEL= PIXEL_SIZE= MAX_PIXELS=
	$(PYTHON) scripts/segment.py --images $(or $(IMAGES),$(error give IMAGES=<folder of images> OUT=<folder for results>)) \
	  --out $(or $(OUT),$(error give OUT=<folder for results>)) --device $(DEVICE) $(if $(WEIGHTS),--weights $(WEIGHTS)) \
	  $(if $(CHANNEL),--channel $(CHANNEL)) $(if $(PIXEL_SIZE),--pixel-size $(PIXEL_SIZE)) \
	  $(if $(MAX_PIXELS),--max-pixels $(MAX_PIXELS))

train: $(foreach member,$(MEMBERS),$(foreach fold,$(FOLDS),$(RUNS)/$(member)/fold_$(fold)/best.pt))  ## train all folds of MEMBERS

predict: $(foreach member,$(MEMBERS),$(RUNS)/$(member)/oof.npz $(RUNS)/$(member)/test.npz)  ## maps of MEMBERS, folds joined

submission: $(SUBMISSIONS)/$(if $(WEIGHTS),$(SHIPPED),ensemble).csv  ## the ensemble of MEMBERS; with WEIGHTS=weights/ensemble.json or weights/<name> without training

leaderboard: $(SUBMISSIONS)/README.md  ## all of MEMBERS, the ensemble and Otsu compared

$(SUBMISSIONS)/README.md: $(foreach experiment,$(SCORED),$(RUNS)/$(experiment)/cv.json $(SUBMISSIONS)/$(experiment).csv) | $(READY)
	$(PYTHON) scripts/leaderboard.py --runs $(RUNS) --submissions $(SUBMISSIONS) --record

standings: | $(READY)  ## the leaderboard anew from all that was scored, here or elsewhere; trains nothing
	$(PYTHON) scripts/leaderboard.py --runs $(RUNS) --submissions $(SUBMISSIONS) --record

report: | $(READY)  ## report.html: leaderboard, curves, scores in parts and the images with their errors, for a browser
	$(PYTHON) scripts/report.py --runs $(RUNS) --submissions $(SUBMISSIONS) --processed $(DATA)/processed --out $(REPORT)

score: $(SUBMISSIONS)/$(EXP).csv  ## score EXP against TRUTH=<csv with Height and Width>
	$(PYTHON) scripts/score.py --submission $< --truth $(TRUTH) --out $(RUNS)/$(EXP)/score.csv

submit: $(SUBMISSIONS)/$(EXP).csv  ## send EXP to Kaggle, wait for its score and record it; MESSAGE='...'
	$(PYTHON) scripts/submit.py --submission $< --index $(DATA)/processed/index.csv --message "$(MESSAGE)" \
	  --record $(SUBMISSIONS)/kaggle.csv

summary: | $(READY)  ## layers, sizes, parameters and multiply-adds: EXP=unet SIZE=572
	$(PYTHON) scripts/summary.py --config $(CONFIGS)/$(EXP).toml --size $(SIZE)

tensorboard: | $(READY)  ## curves of all runs in the browser
	$(PYTHON) -m tensorboard.main --logdir $(RUNS)

# --- the way out ----------------------------------------------------------------------------------------------------

# beside a checkpoint; of weights, whose folder is the repository's, among the runs
EXPORTED := $(if $(filter %.safetensors,$(CHECKPOINT)),$(RUNS)/$(subst /,_,$(patsubst %/,%,$(dir $(CHECKPOINT))))/$(basename $(notdir $(CHECKPOINT)))/best,$(basename $(CHECKPOINT)))
ONNX     := $(EXPORTED).onnx
PROGRAM  := $(EXPORTED).pt2

export: $(ONNX)  ## ONNX and torch.export of a trained network: EXP=unet or CHECKPOINT=<best.pt, .safetensors>

$(ONNX) $(PROGRAM) &: $(CHECKPOINT) | $(PUBLISH)
	$(PYTHON) scripts/export.py --checkpoint $< --onnx $(ONNX) --program $(PROGRAM)

ZOO := $(dir $(EXPORTED))bioimageio.zip

bioimageio: $(ZOO)  ## a package for bioimage.io, tested by its own tool: EXP=unet or CHECKPOINT=

$(ZOO): $(CHECKPOINT) $(ONNX) | $(PUBLISH)
	$(PYTHON) scripts/pack_bioimageio.py --checkpoint $< --onnx $(ONNX) --out $@

kaggle-notebook: | $(READY)  ## a notebook for Kaggle's GPU and its data set of code: KAGGLE_USER=<name> MEMBERS= FOLDS=
	$(PYTHON) scripts/pack_notebook.py --out $(KAGGLE) --user "$(KAGGLE_USER)" --members "$(MEMBERS)" \
	  --shares "$(SHARES)" --folds "$(FOLDS)"
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --dest $(KAGGLE)/dataset \
	  --requirement $(KAGGLE)/dataset/wheels.txt

kaggle-model: $(ONNX)  ## a folder for Kaggle Models: KAGGLE_USER=<name> EXP=unet or CHECKPOINT=
	$(PYTHON) scripts/pack_model.py --files $(ONNX) $(CHECKPOINT) --out $(KAGGLE)/model --user "$(KAGGLE_USER)" \
	  --experiment $(MODEL)

# --- comparison of the networks under one budget -------------------------------------------------------------------------

COMPARISONS ?= comparisons
VARIANTS    ?= $(filter-out budget,$(notdir $(basename $(wildcard configs/compare/*.toml))))
STEPS       ?= $(shell sed -n 's/^steps = //p' configs/compare/budget.toml)
HELD_OUT    ?= 0
COUNTS      ?= 8 16 32 64 128 256 all
SEEDS       ?= 0 1 2
BUDGET      := $(RUNS)/compare/$(STEPS)_steps
POINTS      := $(foreach images,$(COUNTS),$(foreach seed,$(SEEDS),images_$(images)_seed_$(seed)))
OTHER_DATA  := $(if $(filter-out data,$(DATA)), DATA=$(DATA))

# from the folder of $(1) to this one, relative where it can be, so that a folder that moves takes its runs along
SPACE := $(subst x, ,x)
TO_HERE = $(if $(filter /% ..%,$(1)),$(CURDIR)/,$(subst $(SPACE),,$(patsubst %,../,$(subst /, ,$(dir $(1))))))

# $(1) is the config to write, $(2) the one that it extends, $(3) further lines of [training]
define BUDGETED
$(1): $(call CHAIN,$(2))
	@mkdir -p $$(@D)
	@printf 'extends = "%s"\n[training]\nsteps = %s\n$(3)' $(call TO_HERE,$(1))$(2) $(STEPS) > $$@.part && mv $$@.part $$@
endef

# $(1) is the run, $(2) the config that it extends, $(3) further lines of [training]
define MEASURED
$(eval $(call BUDGETED,$(BUDGET)/$(1).toml,$(2),$(3)))
$(BUDGET)/$(1)/fold_$(HELD_OUT)/best.pt: $(BUDGET)/$(1).toml $(DATA)/splits.csv | $(READY)
	$(PYTHON) scripts/train.py --config $$< --processed $(DATA)/processed --splits $(DATA)/splits.csv \
	  --fold $(HELD_OUT) --out $$(@D) --device $(DEVICE) --workers $(WORKERS)

$(BUDGET)/$(1)/measured.json: $(BUDGET)/$(1)/fold_$(HELD_OUT)/best.pt | $(READY)
	$(PYTHON) scripts/measure.py --checkpoint $$< --processed $(DATA)/processed --splits $(DATA)/splits.csv \
	  --out $$@ --device $(DEVICE)
endef

# read only where they are asked for: fifty rules, each with a look into its configs
ifneq ($(filter compare learning-curve $(COMPARISONS)/% $(BUDGET)/%,$(MAKECMDGOALS)),)
$(foreach variant,$(VARIANTS),$(eval $(call MEASURED,$(variant),configs/compare/$(variant).toml)))
POINT = $(eval $(call MEASURED,images_$(1)_seed_$(2),configs/compare/unet_plain.toml,seed = $(2)\n$(3)))
$(foreach seed,$(SEEDS),$(foreach images,$(filter-out all,$(COUNTS)),$(call POINT,$(images),$(seed),images = $(images)\n)))
$(foreach seed,$(SEEDS),$(if $(filter all,$(COUNTS)),$(call POINT,all,$(seed))))
endif

compare: $(COMPARISONS)/compare.csv  ## the variants of configs/compare under one budget: STEPS= VARIANTS=

$(COMPARISONS)/compare.csv: $(foreach variant,$(VARIANTS),$(BUDGET)/$(variant)/measured.json) | $(READY)
	$(PYTHON) scripts/compare.py --measured $^ --configs configs/compare --table compare --out $(@D) \
	  --command "make compare STEPS=$(STEPS)$(OTHER_DATA)"

learning-curve: $(COMPARISONS)/learning_curve.csv  ## the small UNet on more and more images: STEPS= COUNTS= SEEDS=

$(COMPARISONS)/learning_curve.csv: $(foreach point,$(POINTS),$(BUDGET)/$(point)/measured.json) | $(READY)
	$(PYTHON) scripts/compare.py --measured $^ --configs configs/compare --table learning_curve --out $(@D) \
	  --command "make learning-curve STEPS=$(STEPS)$(OTHER_DATA)"

# --- what each step adds: configs/ablation, each file extends the one before it -------------------------------------------

ABLATION   ?= ablation
RUNGS      ?= $(sort $(notdir $(basename $(wildcard configs/ablation/*.toml))))
# those measured on modalities left out as well: as many trainings again
LEFT_OUT_RUNGS ?= $(RUNGS)
# folds of data/splits_modality.csv, the modalities in alphabetical order
MODALITIES ?= 0 1 2 3 4
# where all images are held out in turn; post-processing can be tuned there
COMPLETE   ?= $(if $(filter file,$(origin FOLDS)),folds) $(if $(filter file,$(origin MODALITIES)),modalities)
LADDER     := $(RUNS)/ablation/$(STEPS)_steps
ABLATED    := $(ABLATION)/README.md $(ABLATION)/ablation.csv
SPLITS_OF   = $(DATA)/splits$(if $(filter modalities,$(1)),_modality).csv
HELD_OUT_OF = $(if $(filter modalities,$(1)),$(MODALITIES),$(FOLDS))

# what a rung's file changes says what is done anew: [prediction] alone needs no training, and nothing at all no maps
CHANGED   = $(shell sed -n 's/^\[\(.*\)\].*/\1/p' configs/ablation/$(1).toml)
BELOW     = $(basename $(call SAID,extends,configs/ablation/$(1).toml))
TRAINED   = $(if $(filter-out prediction,$(call CHANGED,$(1))),$(1),$(call TRAINED,$(call BELOW,$(1))))
PREDICTED = $(if $(call CHANGED,$(1)),$(1),$(call PREDICTED,$(call BELOW,$(1))))

# $(1) is the rung, $(2) folds or modalities, $(3) the one that is held out, $(4) the rung whose weights it takes
define HELD_OUT_RUNG
$(LADDER)/$(2)/$(1)/fold_$(3)/best.pt: $(LADDER)/$(1).toml $(call SPLITS_OF,$(2)) | $(READY)
	$(PYTHON) scripts/train.py --config $$< --processed $(DATA)/processed --splits $(call SPLITS_OF,$(2)) \
	  --fold $(3) --out $$(@D) --device $(DEVICE) --workers $(WORKERS)

$(LADDER)/$(2)/$(1)/fold_$(3)/oof.npz: $(LADDER)/$(1).toml $(LADDER)/$(2)/$(4)/fold_$(3)/best.pt | $(READY)
	$(PYTHON) scripts/predict.py --config $$< --checkpoint $(LADDER)/$(2)/$(4)/fold_$(3)/best.pt \
	  --processed $(DATA)/processed --splits $(call SPLITS_OF,$(2)) --oof $$@ --device $(DEVICE)

$(LADDER)/$(2)/$(1)/fold_$(3)/scores.json: $(LADDER)/$(2)/$(1)/fold_$(3)/oof.npz | $(READY)
	$(PYTHON) scripts/score_fold.py --maps $$< --checkpoint $(LADDER)/$(2)/$(4)/fold_$(3)/best.pt \
	  --processed $(DATA)/processed --splits $(call SPLITS_OF,$(2)) --out $$@
endef

# $(1) is the tuned rung, $(2) folds or modalities, $(3) the rung whose maps it takes
define TUNED_RUNG
$(LADDER)/$(2)/$(1)/oof.npz: $(foreach fold,$(call HELD_OUT_OF,$(2)),$(LADDER)/$(2)/$(3)/fold_$(fold)/oof.npz) | $(READY)
	$(PYTHON) scripts/ensemble.py --inputs $$^ --out $$@ --index $(DATA)/processed/index.csv --subset train

$(LADDER)/$(2)/$(1)/cv.json: $(LADDER)/$(2)/$(1)/oof.npz | $(READY)
	$(PYTHON) scripts/tune.py --maps $$< --processed $(DATA)/processed --splits $(call SPLITS_OF,$(2)) --out $$@
endef

define RUNG
$(eval $(call BUDGETED,$(LADDER)/$(1).toml,configs/ablation/$(1).toml))
$(foreach kind,folds modalities,$(if $(call CHANGED,$(1)),$(foreach fold,$(call HELD_OUT_OF,$(kind)),$(eval $(call HELD_OUT_RUNG,$(1),$(kind),$(fold),$(call TRAINED,$(1))))),$(eval $(call TUNED_RUNG,$(1),$(kind),$(call PREDICTED,$(1))))))
endef

# read only where they are asked for, as above; all rungs, since a rung that is left out may have the weights of another
ifneq ($(filter ablation $(ABLATION)/% $(LADDER)/%,$(MAKECMDGOALS)),)
$(foreach rung,$(notdir $(basename $(wildcard configs/ablation/*.toml))),$(eval $(call RUNG,$(rung))))
# the scores of the rungs on one kind of held-out images
RUNG_SCORES = $(foreach rung,$(if $(filter modalities,$(1)),$(LEFT_OUT_RUNGS),$(RUNGS)),$(if $(call CHANGED,$(rung)),$(foreach fold,$(call HELD_OUT_OF,$(1)),$(LADDER)/$(1)/$(rung)/fold_$(fold)/scores.json),$(if $(filter $(1),$(COMPLETE)),$(LADDER)/$(1)/$(rung)/cv.json)))
FOLD_SCORES     := $(call RUNG_SCORES,folds)
MODALITY_SCORES := $(call RUNG_SCORES,modalities)
# a setting of one's own, for the command that the page names
GIVEN = $(if $(filter file,$(origin $(1))),, $(1)='$($(1))')
endif

ablation: $(ABLATION)/README.md  ## what each step adds, out of fold and on modalities never shown: 50 trainings; FOLDS= MODALITIES= RUNGS= some

$(ABLATED) &: $(FOLD_SCORES) $(MODALITY_SCORES) | $(READY)
	$(PYTHON) scripts/ablate.py --configs configs/ablation --out $(ABLATION) --folds $(FOLD_SCORES) \
	  --modalities $(MODALITY_SCORES) \
	  --command "make ablation$(call GIVEN,STEPS)$(call GIVEN,RUNGS)$(call GIVEN,LEFT_OUT_RUNGS)$(call GIVEN,FOLDS)$(call GIVEN,MODALITIES)$(OTHER_DATA)"

# --- demonstration and checks ---------------------------------------------------------------------------------------

DEMO := demo
DEMO_SETTINGS := DATA=$(DEMO)/data RUNS=$(DEMO)/runs SUBMISSIONS=$(DEMO)/submissions SOURCE=$(DEMO)/archive \
  CONFIGS=configs/demo MEMBERS='demo_unet demo_three_class' FOLDS='0 1' WORKERS=0

demo: $(DEMO)/archive/stage1_solution.csv  ## the whole pipeline on generated images
	@OMP_NUM_THREADS=1 $(MAKE) --no-print-directory -j2 $(DEMO_SETTINGS) leaderboard score
	@cat $(DEMO)/submissions/README.md
	@echo "submission: $(DEMO)/submissions/ensemble.csv"
	@echo "next, on the real images:  make submission            (downloads them; SOURCE=kaggle or a folder also work)"

$(DEMO)/archive/stage1_solution.csv: | $(READY)
	$(PYTHON) scripts/generate.py --out $(@D)

# The libraries that the benchmarks are held against stay in a folder of their own; nothing else sees them.
PEERS := benchmarks/peers
BENCH_DATA := $(if $(wildcard $(DATA)/splits.csv),$(DATA),$(DEMO)/data)
ROWS ?=

bench: $(PEERS)/installed.txt $(BENCH_DATA)/splits.csv  ## speed against other libraries; ROWS='metric crops ...' runs some
	PYTHONPATH=$(PYTHONPATH):$(CURDIR)/$(PEERS) OMP_NUM_THREADS=1 $(PYTHON) benchmarks/run.py --data $(BENCH_DATA) \
	  $(if $(filter-out auto,$(DEVICE)),--device $(DEVICE)) $(if $(ROWS),--rows $(ROWS)) \
	  $(addprefix --maps ,$(wildcard $(RUNS)/$(firstword $(MEMBERS))/oof.npz))

$(PEERS)/installed.txt: benchmarks/requirements.txt | $(READY)
	$(PYTHON) -m pip install --quiet --no-deps --upgrade --target $(@D) --requirement $<
	cp $< $@

ifneq ($(BENCH_DATA),$(DATA))
$(BENCH_DATA)/splits.csv: $(DEMO)/archive/stage1_solution.csv
	@$(MAKE) --no-print-directory $(DEMO_SETTINGS) $@
endif

# Two processes of one thread each; a file's tests stay together, since they share what its fixtures have made, and in the
# order of the files, since the longest ones would otherwise come last: they have few tests.
test: $(DEVELOP)  ## all tests
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(DEVELOP)  ## ruff and mypy
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format: $(DEVELOP)  ## let ruff put the code in order
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
