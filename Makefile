# The pipeline as a graph of files: `make` lists the targets, docs/make.md explains how it works.
#
# A file that is newer than what it is made from is not made again. Code is no prerequisite, and of a config only
# what it says counts, not when it was written. mk/ holds the rules, a chapter a file; those of every experiment,
# fold, comparison and ablation step are written by mk/write_rules.py to .rules/, where they can be read.

# GNU make before 4.3 has no rules with several targets; it must learn so before it reads one.
ifeq ($(filter grouped-target,$(.FEATURES)),)
$(error GNU make 4.3 or later is needed, this is $(MAKE_VERSION). On macOS: `brew install make`, then `gmake` for `make`)
endif

# --- settings: `make <target> NAME=value`. Constants, which mk/write_rules.py reads from here; an empty one has the
# --- default that its comment says. The environment does not count. Recipes take a setting by its lower-case name.

# folders and files
SOURCE         = bbbc                 # the images: bbbc, kaggle, fixes (repaired masks), a folder, zip or URL
DATA           = data                 # what is downloaded and prepared
EXTERNAL       =                      # external data sets that a config's training.external names: DATA/external
SETS           =                      # those that `make external` makes ready: 'bbbc039 tnbc nuinsseg my_folder'
SPLITS         =                      # table of folds: DATA/splits.csv; _modality, _source: whole ones held out
RUNS           = runs                 # checkpoints, probability maps, scores
SUBMISSIONS    = submissions          # CSVs for Kaggle, and the leaderboard
PACKED         = weights              # trained networks to pass on
CONFIGS        = configs              # one TOML an experiment
# experiments
MEMBERS        = encoder_resunet resunet_wide  # the ensemble
ENSEMBLE_WEIGHTS =                    # weights of the members, in their order; tuned out of fold where empty
EXP            =                      # one experiment instead of MEMBERS, or `ensemble`
SPLIT_INTO     = 5                    # how many folds `make splits` makes
FOLDS          =                      # some of the folds: '0 1'; all where empty
SUBSET         = stage1               # test images of submission, score, submit: stage1, or stage2, the final set
FOLD           =                      # one of them; `all` trains on all images and holds out none
WEIGHTS        =                      # trained weights: a .safetensors, a folder of them, or an ensemble.json
# the machine
PYTHON         = .venv/bin/python     # another one has the packages already, so that no .venv is made
DEVICE         = auto                 # cpu, cuda, mps
DEVICES        = 1                    # processes, or GPUs, of this machine
NODES          = 1                    # machines
WORKERS        = 1                    # processes that load training images
COMPILE        =                      # 1: torch.compile before training
V              =                      # 1: show the commands of every stage
MINUTES        =                      # time for finetune (5 where empty) or for all of train-all (60)
# train-all: a whole competition in the time that a machine is at hand
ON_ALL_IMAGES  = generalist           # networks that it trains on all images too; none: ON_ALL_IMAGES=
AT_ONCE        =                      # trainings at the same time; chosen from cores and memory where empty
# segment: your own images
IMAGES         =                      # folder of images, or one file
OUT            =                      # folder of the results
CHANNEL        =                      # the channel with the nuclei, counted from 1
PIXEL_SIZE     =                      # micrometres a pixel, where the file does not say
MAX_PIXELS     =                      # larger images are refused
SCALE          =                      # 2 for nuclei of 4 to 6 pixels across: the network sees the image enlarged
MODE           =                      # fast: one network, one scale; best: all that the weights have. fast where empty
FAST           =                      # 1: the same as MODE=fast, its name of before
MIN_AREA       =                      # smaller objects are left out: pixels, 40, or square micrometres, 20um2
MAX_AREA       =                      # larger objects are left out
KEEP_FIBRES    =                      # 1: long thin objects are kept
# finetune: a network for your own images; SOURCE is your folder, OUT the file of weights
START          =                      # weights to start from: a .safetensors or a name; the packaged network
# scores and Kaggle
TRUTH          =                      # solution with Height and Width: DATA/raw/stage1_solution.csv
MESSAGE        =                      # description of a submission: EXP, or the name of WEIGHTS
KAGGLE_USER    =                      # your name on Kaggle: $KAGGLE_USERNAME, the one exception to the environment
KAGGLE         = upload               # folder of the notebook and the model for Kaggle
# pages, and networks to publish
REPORT         = report.html          # page of `make report`
EDA            =                      # page of `make eda`: eda.html, DATA/eda.html for other data
SIZE           = 256                  # image side of `make summary`
MODEL          =                      # network to show or publish: EXP, or the first of MEMBERS
CHECKPOINT     =                      # its file: the one trained here, or the one shipped in PACKED
# comparison under one budget
COMPARISONS    = comparisons          # folder of its tables
VARIANTS       =                      # some of configs/compare
STEPS          =                      # optimiser steps of each: as in configs/compare/budget.toml, 1500 in the curve
HELD_OUT       = 0                    # fold to score on
AGAINST        = unet_plain           # what `make screen` compares with: of configs/compare, or an experiment
COUNTS         = 8 16 32 64 128 256 all  # training images of the learning curve
SEEDS          = 0 1                  # its repetitions
# ablation
ABLATION       = ablation             # folder of its table
ABLATION_STEPS =                      # some steps of configs/ablation
UNSEEN_STEPS   =                      # of these, those scored on unseen modalities too: ABLATION_STEPS
MODALITIES     = 0 1 2 3 4            # folds of DATA/splits_modality.csv
COMPLETE       =                      # held-out kinds that lack no fold, so that post-processing can be tuned there
# benchmarks
ROWS           =                      # some rows of benchmarks/run.py
# `make torture`
KILLS          = 200                  # how often the demo is killed
CASES          = 10000                # broken files to read, and ten times as many run lengths

# --- end of the settings --------------------------------------------------------------------------------------------

# What the command line gives is text: no program sees it but by a flag, and a $ in it is a dollar sign.
GIVEN := $(strip $(foreach name,$(.VARIABLES),$(if $(filter command line,$(origin $(name))),$(name))))
unexport $(GIVEN)

export PYTHONPATH := $(CURDIR)/src$(if $(PYTHONPATH),:$(PYTHONPATH))
# On a CPU: memory is kept from one step to the next instead of returned, and idle threads sleep.
export MALLOC_MMAP_THRESHOLD_ ?= 4294967296
export MALLOC_TRIM_THRESHOLD_ ?= 8589934592
export OMP_WAIT_POLICY ?= PASSIVE

# No .DELETE_ON_ERROR; a file gets its name when it is whole, so that none has to be deleted.
.PHONY: help
help:
	@awk -f mk/help.awk $(sort $(wildcard mk/*.mk)) Makefile

# `make help` needs no Python. All else asks the generator, which refuses what it does not know.
ifneq ($(filter-out help,$(MAKECMDGOALS)),)
quoted = '$(subst ','\'',$(1))'
GIVEN_PYTHON := $(if $(filter PYTHON,$(GIVEN)),$(call quoted,$(value PYTHON)))
FIND_PYTHON := $(or $(GIVEN_PYTHON),$$(test -x .venv/bin/python && echo .venv/bin/python || echo python3))
ANSWER := $(shell $(FIND_PYTHON) -ES mk/write_rules.py $(foreach goal,$(MAKECMDGOALS),--goal $(call quoted,$(goal))) \
  $(foreach name,$(GIVEN),--setting $(call quoted,$(name)=$(value $(name)))))
ifneq ($(.SHELLSTATUS),0)
NO_ANSWER := the rules were not written; Python 3.11 or later is needed, as python3 or by PYTHON=<path>
$(error $(or $(ANSWER),$(NO_ANSWER)))
endif
include $(ANSWER)
# A line a stage, or with V=1 its commands.
quiet := $(if $(v),,@)
say := $(if $(v),@:,@echo)
include $(sort $(wildcard mk/*.mk))
endif
