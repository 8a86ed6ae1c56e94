cd /tmp/lab/startwork; export PYTHONPATH=/tmp/lab/startwork
python -m pytest -q -x --maxfail=40 "$@" 2>&1 | tail -60
