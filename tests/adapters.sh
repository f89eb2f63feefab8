#!/usr/bin/env bash
# Prepares more software adapters than the distribution's own driver, without installing anything system-wide:
#
#   tests/adapters.sh            prepares all, prints the wrappers
#   target/adapters/mesa.sh PROGRAM ARGS…         runs PROGRAM on a current Mesa (from Debian sid, under its own loader)
#   target/adapters/swiftshader.sh PROGRAM ARGS…  runs PROGRAM on SwiftShader (from Debian's chromium): subgroups of 4
#   target/adapters/lavapipe.sh, gl.sh            the distribution's Mesa by Vulkan and by OpenGL
#
# Needs apt (Debian or Ubuntu, x86-64), about 450 MB of disk and no root. What is there already is kept.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p target/adapters
dir=$PWD/target/adapters
[ -n "$(command -v apt-get)" ] || { echo "adapters.sh: needs apt-get; found none" >&2; exit 2; }

# fetch NAME SUITE PACKAGES…: resolves against an empty system, so that the whole closure comes, and unpacks it.
fetch() {
  local name=$1 suite=$2 prefix=$dir/$1; shift 2
  [ -e "$prefix/.done" ] && return
  rm -rf "$prefix" "$dir/apt-$name"; mkdir -p "$prefix" "$dir/apt-$name"/{lists/partial,cache/archives/partial,empty}
  local mirror; mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -1)
  local key=/usr/share/keyrings/debian-archive-keyring.gpg
  echo "deb [signed-by=$key] $mirror/ $suite main" >"$dir/apt-$name/sources"
  local options=(-qq -o Dir::Etc::sourcelist="$dir/apt-$name/sources" -o Dir::Etc::sourceparts="$dir/apt-$name/empty"
    -o Dir::State::Lists="$dir/apt-$name/lists" -o Dir::Cache="$dir/apt-$name/cache" -o APT::Sandbox::User="$(id -un)"
    -o Debug::NoLocking=1)
  : >"$dir/apt-$name/status"
  apt-get "${options[@]}" update
  apt-get "${options[@]}" -o Dir::State::status="$dir/apt-$name/status" -o APT::Install-Recommends=0 \
    -y --download-only install "$@"
  for package in "$dir/apt-$name"/cache/archives/*.deb; do dpkg -x "$package" "$prefix"; done
  rm -rf "$dir/apt-$name"; touch "$prefix/.done"
}

# wrapper NAME LINE…: a script that sets the environment and runs its arguments.
wrapper() {
  local path=$dir/$1.sh; shift
  { echo '#!/usr/bin/env bash'; printf '%s\n' 'export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$(mktemp -d)}' "$@"; } >"$path"
  chmod +x "$path"; echo "$path"
}

wrapper lavapipe 'export WGPU_BACKEND=vulkan VK_DRIVER_FILES=$(ls /usr/share/vulkan/icd.d/lvp_icd*.json | head -1)' 'exec "$@"'
wrapper gl 'export WGPU_BACKEND=gl' 'exec "$@"'

fetch mesa sid mesa-vulkan-drivers libegl1 libegl-mesa0 libgles2 libgl1-mesa-dri libvulkan1
lib=$(dirname "$(find "$dir/mesa" -name 'libvulkan_lvp.so' | head -1)")
sed "s|\"library_path\": *\"[^\"]*\"|\"library_path\": \"$lib/libvulkan_lvp.so\"|" \
  "$(find "$dir/mesa" -name 'lvp_icd*.json' | head -1)" >"$dir/mesa-icd.json"
loader=$(find "$dir/mesa" -name 'ld-linux-x86-64.so.2' | head -1)
wrapper mesa "export WGPU_BACKEND=vulkan VK_DRIVER_FILES=$dir/mesa-icd.json" "exec $loader --library-path $lib \"\$@\""

if [ ! -e "$dir/swiftshader/.done" ]; then
  mkdir -p "$dir/swiftshader"
  (cd "$dir/swiftshader" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download chromium-common && dpkg -x chromium-common_*.deb . && rm -f ./*.deb && touch .done)
fi
icd=$(find "$dir/swiftshader" -name 'vk_swiftshader_icd.json' | head -1)
wrapper swiftshader "export WGPU_BACKEND=vulkan VK_DRIVER_FILES=$icd" 'exec "$@"'
