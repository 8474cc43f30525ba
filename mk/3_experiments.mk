##@ Experiments: of MEMBERS, or of one with EXP=; of all folds, or with FOLD=0 or FOLDS='0 1' of some
# The prerequisites of each target are in .rules/, with the rules of every experiment, fold and ensemble.
.PHONY: train predict submission weights

train:  ## train the networks, fold by fold

predict:  ## predict the held-out and the test images

submission:  ## the CSV for Kaggle; without training WEIGHTS=weights/ensemble.json; SUBSET=stage2

weights:  ## pack trained networks to pass on: EXP=<experiment>, or MEMBERS as an ensemble

#: submissions/<experiment>.csv   one experiment, all stages: a config of configs/

# the classical baseline, scored like an experiment
$(runs)/otsu/cv.json $(submissions)/otsu.csv &: $(splits) | $(ready)
	$(say) "score    otsu, the classical baseline"
	$(quiet)$(python) scripts/otsu.py --processed $(data)/processed --splits $(splits) --cv $(runs)/otsu/cv.json \
	  --submission $(submissions)/otsu.csv
