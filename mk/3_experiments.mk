##@ Experiments: of MEMBERS, or of one with EXP=; of all folds, or with FOLD=0 or FOLDS='0 1' of some
# The prerequisites of each target are in .rules/, with the rules of every experiment, fold and ensemble.
.PHONY: train train-all predict submission weights

train:  ## train the networks, fold by fold

# On a machine with a GPU for an hour there may be the prepared images alone: they are not made again.
missing_images := $(if $(wildcard $(data)/processed/index.csv),,$(data)/processed/index.csv)
minutes_for_all := $(or $(minutes),60)
missing_splits := $(if $(wildcard $(splits)),,$(splits))

train-all: $(missing_images) $(missing_splits) | $(ready)  ## all folds of MEMBERS, and ON_ALL_IMAGES, in MINUTES=60; goes on later
	$(say) "train-all "$(strip $(members) $(on_all_images))" in "$(minutes_for_all)" minutes"
	$(quiet)$(python) scripts/train_all.py --minutes $(minutes_for_all) --members $(members) --on-all-images $(on_all_images) \
	  --folds $(folds) --configs $(configs) --processed $(data)/processed --splits $(splits) --external $(external) \
	  --out $(runs)/$(minutes_for_all)_minutes --device $(device) $(if $(at_once),--at-once $(at_once)) $(if $(compile),--compile)

predict:  ## predict the held-out and the test images

submission:  ## the CSV for Kaggle; without training WEIGHTS=weights/ensemble.json; SUBSET=stage2

weights:  ## pack trained networks to pass on: EXP=<experiment>, or MEMBERS as an ensemble

#: submissions/<experiment>.csv   one experiment, all stages: a config of configs/

# the classical baseline, scored like an experiment
$(runs)/otsu/cv.json $(submissions)/otsu.csv &: $(splits) | $(ready)
	$(say) "score    otsu, the classical baseline"
	$(quiet)$(python) scripts/otsu.py --processed $(data)/processed --splits $(splits) --cv $(runs)/otsu/cv.json \
	  --submission $(submissions)/otsu.csv
