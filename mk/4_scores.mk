##@ Scores and Kaggle
.PHONY: leaderboard standings unseen report score submit kaggle-scores tensorboard

leaderboard: $(submissions)/README.md  ## MEMBERS, their ensemble and Otsu's threshold compared

# generated: what is compared
$(submissions)/README.md: | $(ready)
	$(quiet)$(python) scripts/leaderboard.py --runs $(runs) --submissions $(submissions) --record

standings: | $(ready)  ## the leaderboard of all that was scored, here or elsewhere; trains nothing
	$(quiet)$(python) scripts/leaderboard.py --runs $(runs) --submissions $(submissions) --record

# generated: the trainings with whole sources held out, their predictions and scores
unseen: | $(ready)  ## train and score with whole sources held out, and the leaderboard: EXP=
	$(quiet)$(python) scripts/leaderboard.py --runs $(runs) --submissions $(submissions) --record

report: | $(ready)  ## a page: leaderboard, learning curves, the images with their errors
	$(quiet)$(python) scripts/report.py --runs $(runs) --submissions $(submissions) --processed $(data)/processed \
	  --out $(report)

# These two take the CSV that is there. Only beside a goal that makes it do they wait for it.
making_csv := $(filter submission leaderboard %.csv,$(MAKECMDGOALS))
csv_is_there = test -f $(csv) || { echo "error: $(csv) is missing; $(how_to_make_csv)" >&2; exit 1; }
truth_is_there = test -f $(truth) || { printf 'error: %s is missing; %s\n' $(truth) $(how_to_get_truth) >&2; exit 1; }
get_truth := $(if $(filter stage2,$(subset)),make data SUBSET=stage2 brings that of stage 2,make data brings that of stage 1)
how_to_get_truth := '$(get_truth), or give TRUTH=<solution.csv>'

score: $(if $(making_csv),$(csv)) | $(ready)  ## score the CSV that is there against TRUTH=<solution>: EXP= or WEIGHTS=
	@$(csv_is_there)
	@$(truth_is_there)
	$(quiet)$(python) scripts/score.py --submission $(csv) --truth $(truth) --out $(runs)/$(csv_name)/score.csv \
	  $(if $(filter stage2,$(subset)),--usage Private)

submit: $(if $(making_csv),$(csv)) | $(ready)  ## send the CSV that is there to Kaggle: EXP= or WEIGHTS=, MESSAGE='...'
	@$(csv_is_there)
	$(quiet)$(python) scripts/submit.py --submission $(csv) --index $(test_index) --message $(message) \
	  --record $(submissions)/kaggle.csv

kaggle-scores: | $(ready)  ## ask Kaggle for scores that were still to come; sends nothing
	$(quiet)$(python) scripts/fetch_scores.py --record $(submissions)/kaggle.csv

tensorboard: | $(ready)  ## learning curves of all runs in the browser
	$(quiet)$(python) -m tensorboard.main --logdir $(runs)
