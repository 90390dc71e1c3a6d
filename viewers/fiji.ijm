// Fiji: find every cell like those in the ROI Manager. What to click: docs/viewers.md of fsis_jax.
//
// The ROIs of example cells are saved beside the image, in the folder fsis-NAME; what is found takes their place in the
// ROI Manager.

fsis = "fsis"; // the command, with its whole path if Fiji does not find it

directory = getInfo("image.directory");
name = getInfo("image.filename");
image = directory + name;
if (directory == "" || !File.exists(image))
    exit("Save the image first: fsis reads its file");
if (roiManager("count") == 0)
    exit("Draw a box around one to five cells, and add each to the ROI Manager (press t)");

folder = directory + "fsis-" + File.getNameWithoutExtension(image) + File.separator;
File.makeDirectory(folder);
examples = folder + "examples.zip";
output = folder + "found";
roiManager("deselect");
roiManager("save", examples);

print(exec(fsis, "segment", image, "--reference-outlines", examples, "--reference-image", image, "--output", output, "--save", "rois", "table"));

found = "";
if (File.isDirectory(output)) {
    files = getFileList(output);
    for (i = 0; i < files.length; i++)
        if (endsWith(files[i], "-rois.zip"))
            found = output + File.separator + files[i];
}
if (found == "")
    exit("fsis found nothing or failed: the Log window says why");
roiManager("reset");
roiManager("open", found);
roiManager("show all without labels");
print(roiManager("count") + " cells; the examples are in " + examples);
