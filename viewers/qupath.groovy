/*
 * QuPath: find every cell like those that are outlined as "reference". What to click: docs/viewers.md of fsis_jax.
 *
 * Of an image that has annotations of the class "reference" their boxes are encoded into a file of the project; every
 * image, also by "Run for project", is then segmented by this file, and what is found becomes detections. For QuPath
 * 0.4 and later.
 */
def fsis = "fsis"            // the command, with its whole path if QuPath does not find it
def referenceClass = "reference"
def foundClass = "cell"      // detections of this class are replaced
def more = []                // further options, such as ["--min-score", "0.4"]

def execute(List command) {
    def process = new ProcessBuilder(command*.toString()).redirectErrorStream(true).start()
    process.inputStream.eachLine { println it }
    if (process.waitFor() != 0)
        throw new RuntimeException("fsis failed: the lines above say why")
}

def entry = getProjectEntry()
if (entry == null)
    throw new RuntimeException("No project: create one, and add the image to it")
def files = getCurrentServer().getURIs().collect { new File(it) }
if (files.size() != 1)
    throw new RuntimeException("The image is not one file on this computer")
def image = files[0]
def folder = new File(buildFilePath(PROJECT_BASE_DIR, "fsis"))
def output = new File(folder, entry.getID())
output.mkdirs()
def encoded = new File(folder, "references.refs")

def references = getAnnotationObjects().findAll { it.getPathClass() == getPathClass(referenceClass) }
if (references) {
    def outlines = new File(output, "references.json")
    exportObjectsToGeoJson(references, outlines.getPath(), "FEATURE_COLLECTION")
    execute([fsis, "references", "--reference-outlines", outlines, "--reference-image", image, "--output", encoded])
} else if (!encoded.exists())
    throw new RuntimeException("Outline one to five cells, give them the class '${referenceClass}', and run this again")

execute([fsis, "segment", image, "--references", encoded, "--output", output, "--save", "geojson", "--category", foundClass] + more)

removeObjects(getDetectionObjects().findAll { it.getPathClass() == getPathClass(foundClass) }, true)
def found = output.listFiles().findAll { it.getName().endsWith(".geojson") }
found.each { importObjectsFromFile(it.getPath()) }
fireHierarchyUpdate()
println "${getDetectionObjects().size()} detections"
