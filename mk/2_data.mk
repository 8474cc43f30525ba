##@ Data
.PHONY: data splits external eda

data: $(test_index)  ## download and prepare the images: SOURCE=bbbc|kaggle|fixes|<folder>|<URL>

splits: $(data)/splits.csv  ## folds that keep tiles of one slide and near-duplicates together

$(data)/raw/manifest.csv: | $(ready)
	$(say) "download "$(source)
	$(quiet)$(python) scripts/download.py --source $(source) --out $(data)/raw

$(data)/processed/index.csv: $(data)/raw/manifest.csv | $(ready)
	$(say) "prepare  "$(data)/processed
	$(quiet)$(python) scripts/prepare.py --raw $(data)/raw --out $(data)/processed

# the final set, apart from all others: no training depends on it
$(data)/stage2/raw/manifest.csv: | $(ready)
	$(say) "download "$(source)", the final set"
	$(quiet)$(python) scripts/download.py --stage stage2 --source $(source) --out $(data)/stage2/raw

$(data)/stage2/processed/index.csv: $(data)/stage2/raw/manifest.csv | $(ready)
	$(say) "prepare  "$(data)/stage2/processed
	$(quiet)$(python) scripts/prepare.py --stage stage2 --raw $(data)/stage2/raw --out $(data)/stage2/processed

$(data)/splits.csv: $(data)/processed/index.csv | $(ready)
	$(say) "splits   "$(data)/splits.csv
	$(quiet)$(python) scripts/make_folds.py --index $(data)/processed/index.csv --out $(data)/splits.csv --folds $(split_into)

$(data)/splits_modality.csv: $(data)/processed/index.csv | $(ready)
	$(say) "splits   "$(data)/splits_modality.csv
	$(quiet)$(python) scripts/make_folds.py --index $(data)/processed/index.csv --out $(data)/splits_modality.csv --by modality

$(data)/splits_source.csv: $(data)/processed/index.csv | $(ready)
	$(say) "splits   "$(data)/splits_source.csv
	$(quiet)$(python) scripts/make_folds.py --index $(data)/processed/index.csv --out $(data)/splits_source.csv --by source \
	  --folds $(split_into)

# the learning curve's: images of seen and of unseen sources are held out together
$(data)/splits_curve.csv: $(data)/processed/index.csv | $(ready)
	$(say) "splits   "$(data)/splits_curve.csv
	$(quiet)$(python) scripts/make_folds.py --index $(data)/processed/index.csv --out $(data)/splits_curve.csv \
	  --by seen-and-unseen --folds $(split_into)

external: $(data)/processed/index.csv | $(ready)  ## data sets from elsewhere: SETS='bbbc039 tnbc nuinsseg my_folder'
	$(say) "external "$(external)
	$(quiet)$(python) scripts/prepare_external.py --sets $(sets) --processed $(data)/processed --out $(external)

eda: $(eda)  ## a page and a table: sizes, modalities, sources, nuclei, doubtful annotations

# with the folds where there are some, or where this very command makes them
folds_for_eda := $(if $(wildcard $(data)/splits.csv)$(filter splits,$(MAKECMDGOALS)),$(data)/splits.csv)
sources_for_eda := $(wildcard $(data)/splits_source.csv)

$(eda) $(eda_table) &: $(data)/processed/index.csv $(folds_for_eda) $(sources_for_eda) | $(ready)
	$(say) "eda      "$(eda)
	$(quiet)$(python) scripts/eda.py --processed $(data)/processed $(if $(folds_for_eda),--splits $(folds_for_eda)) \
	  $(if $(sources_for_eda),--source-splits $(sources_for_eda)) \
	  --page $(eda) --table $(eda_table)
