#!/bin/bash
# One worker on each of two nodes: sbatch configs/cluster/slurm.sh --model supervised --prior swiss_roll --n_z 2
#SBATCH --job-name=aae
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the time is up: every worker gets SIGTERM, and the chief writes a checkpoint.
#SBATCH --signal=TERM@120
# On nodes with GPUs, all of which each worker takes:
##SBATCH --gpus-per-node=4

set -u
cd "${SLURM_SUBMIT_DIR:-.}" || exit 1
# On a disk that all nodes see. The number of the job stays the same when it is requeued.
run_dir=${RUN_DIR:-runs/slurm-$SLURM_JOB_ID}
if [[ -e $run_dir/config.json ]]; then
  flags=(--resume)
else
  flags=("$@" --strategy multi_worker)
fi

srun bash -c '
  TF_CONFIG=$(python configs/cluster/slurm_tf_config.py) || exit
  export TF_CONFIG
  exec python -u main.py "$@"
' aae "${flags[@]}" --run_dir "$run_dir"
status=$?

# 75: a worker was lost. The job begins again, on other nodes if need be, and goes on from the last checkpoint.
if ((status == 75)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
