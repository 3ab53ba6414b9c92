# An application as many a script is: it leaves daemons behind, each two forks and a session away, and stays in front: script DIR WORKER
group="$$-$BATON_EPOCH"
for _ in 1 2; do
    setsid sh -c 'setsid sh "$@" </dev/null >/dev/null 2>&1 &' sh "$2" "$1" "$BATON_NODE" "$BATON_EPOCH" "$group"
done
exec sh "$2" "$1" "$BATON_NODE" "$BATON_EPOCH" "$group"
