process FSIS_SEGMENT {
    tag "$meta.id"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "fsis:0.2.0"

    input:
    tuple val(meta), path(images), path(references)

    output:
    tuple val(meta), path("${prefix}/*-labels.tif") , emit: labels, optional: true
    tuple val(meta), path("${prefix}/*-table.csv")  , emit: table, optional: true
    tuple val(meta), path("${prefix}/*-overlay.png"), emit: overlay, optional: true
    tuple val(meta), path("${prefix}/*.geojson")    , emit: geojson, optional: true
    tuple val(meta), path("${prefix}/*-rois.zip")   , emit: rois, optional: true
    tuple val(meta), path("${prefix}/*-coco.json")  , emit: coco, optional: true
    tuple val(meta), path("${prefix}/summary.csv")  , emit: summary
    path "versions.yml"                             , emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    fsis segment \\
        ${images} \\
        --references ${references} \\
        --output ${prefix} \\
        ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        fsis: \$(fsis --version | sed 's/fsis //')
    END_VERSIONS
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir ${prefix}
    touch ${prefix}/summary.csv
    touch ${prefix}/image-labels.tif
    touch ${prefix}/image-table.csv
    touch ${prefix}/image-overlay.png

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        fsis: \$(fsis --version | sed 's/fsis //')
    END_VERSIONS
    """
}
