// Work that a form begins and a button stops.
export function stoppable(form, halt, work) {
  const begin = form.querySelector("[type=submit]");
  let stop = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    stop = false;
    begin.disabled = true;
    halt.hidden = false;
    halt.disabled = false;
    await work(() => stop);
    begin.disabled = false;
    // What goes leaves the keyboard nowhere.
    if (document.activeElement === halt || halt.disabled) begin.focus({ preventScroll: true });
    halt.hidden = true;
  });
  halt.addEventListener("click", () => {
    stop = true;
    halt.disabled = true;
  });
}
