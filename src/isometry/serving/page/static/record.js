// Back to the search that led here, with its words and filters.
const back = document.getElementById("back");
const last = sessionStorage.getItem("search:" + back.getAttribute("href"));
if (last && last.startsWith("/") && !last.startsWith("//")) back.href = last;
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") location.href = back.href;
});
