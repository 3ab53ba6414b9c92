# A daemon that acts: worker DIR NODE EPOCH GROUP
read -r begun rest </proc/uptime
file="$1/main,$2,$3,$$,$begun,$4.uptime"
while [ -d "$1" ]; do
    read -r now rest </proc/uptime
    echo "$now" >"$file"
    sleep 0.01
done
